# SPDX-License-Identifier: GPL-2.0
# How the picture looks. "plot" puts the data before this, a line
# 'ROW "LABEL" VALUE...' for each group of bars, with a VALUE for each of
# Kernels[], which are strings; and the panels behind it.

n = |Kernels|
thick = 0.8 / n

set style fill solid noborder
set linetype 1 lc rgb "#2f6ca8"
set linetype 2 lc rgb "#e8923a"
set linetype 3 lc rgb "#4a9a6a"
set logscale x
set xtics nomirror
set ytics nomirror scale 0
set grid xtics lc rgb "#d0d0d0"
set border 3 lc rgb "#808080"
set tics textcolor rgb "black"
set lmargin at screen 0.29
set rmargin at screen 0.94

# Bar k of a group, from the left edge on, and its value behind it. A panel says
# what "data" is, and where the "left" edge.
middle(row, k) = row + 0.4 - (k - 0.5) * thick
text(v) = v < 10 ? sprintf("%.2f", v) : \
	v < 1e6 ? sprintf("%.0f", v) : sprintf("%.1f million", v / 1e6)
bars = '[] [-0.6:|@data|-0.4]' . \
	' for [k=1:n] @data using (left):(middle($1, k)):(left):(column(k + 2))' . \
	':(middle($1, k) - thick / 2):(middle($1, k) + thick / 2)' . \
	' with boxxyerror lt k title Kernels[k],' . \
	' for [k=1:n] @data using (column(k + 2) * 1.06):(middle($1, k)):(text(column(k + 2)))' . \
	' with labels left font ",9" notitle,' . \
	' @data using (left):1:yticlabels(2) with points pt -1 notitle'

set key at screen 0.94, 0.995 right top horizontal
