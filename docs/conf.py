# SPDX-License-Identifier: GPL-2.0
"""The documentation as a site: "make docs"."""

import pathlib
import re

TREE = pathlib.Path(__file__).resolve().parent.parent

project = 'kvmfr'
copyright = 'the kvmfr authors'  # pylint: disable=redefined-builtin
version = re.search(r'^PACKAGE_VERSION="(.*)"$', (TREE / 'dkms.conf').read_text(), re.M)[1]
release = version
html_theme = 'alabaster'
html_theme_options = {'description': 'Memory shared between a host and its virtual machines'}
html_copy_source = False
exclude_patterns = ['man']
nitpicky = True
highlight_language = 'none'
