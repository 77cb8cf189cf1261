/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What older kernels lack. kvmfr.c is written for the newest one and includes
 * this last; nothing else in the project knows kernel versions.
 *
 * Vendors backport features under old version numbers. So a shim asks for the
 * feature: for a macro, or for a KVMFR_HAS_* that Kbuild defines when it finds the
 * declaration in the kernel's headers. The version in a shim's first line only
 * says which kernels needed it when it was written.
 */
#ifndef KVMFR_COMPAT_H
#define KVMFR_COMPAT_H

#include <linux/mm.h>
#include <linux/mman.h>
#include <linux/version.h>

#if LINUX_VERSION_CODE < KERNEL_VERSION(5, 10, 0)
#error "kvmfr needs Linux 5.10 or newer"
#endif

/* shim: kzalloc_obj, needed before 7.0 (February 2026) */
#ifndef kzalloc_obj
#define kzalloc_obj(obj)	kzalloc(sizeof(obj), GFP_KERNEL)
#endif
/* end shim */

/* shim: module_import_ns, needed from 5.16 to before 6.13 (December 2024)
 *
 * The name of a namespace became a string. What both expand to hasn't changed.
 */
#undef MODULE_IMPORT_NS
#define MODULE_IMPORT_NS(ns)	MODULE_INFO(import_ns, ns)
/* end shim */

/* shim: vm_flags, needed before 6.3 (February 2023)
 *
 * vm_flags was changed directly.
 */
#ifndef KVMFR_HAS_VM_FLAGS_SET
static inline void vm_flags_set(struct vm_area_struct *vma, unsigned long flags)
{
	vma->vm_flags |= flags;
}

static inline void vm_flags_clear(struct vm_area_struct *vma,
				  unsigned long flags)
{
	vma->vm_flags &= ~flags;
}
#endif
/* end shim */

/* shim: get_unmapped_area, needed before 5.18 (March 2022)
 *
 * thp_get_unmapped_area() aligned the mappings of DAX files only. That can't be
 * seen in any header, so here the version decides; where the change has been
 * backported this does the same once more. Seen by: mmap
 * static.whole_device_takes_one_fault_for_each_huge_page
 */
#if LINUX_VERSION_CODE < KERNEL_VERSION(5, 18, 0) && \
	defined(KVMFR_HAS_MM_GET_UNMAPPED_AREA)
static inline unsigned long
kvmfr_get_unmapped_area(struct file *file, unsigned long addr,
			unsigned long len, unsigned long pgoff,
			unsigned long flags)
{
	unsigned long place;

	if (!addr && !(flags & MAP_FIXED) && len >= PMD_SIZE &&
	    len + PMD_SIZE > len) {
		place = current->mm->get_unmapped_area(file, 0, len + PMD_SIZE,
						       pgoff, flags);
		if (!IS_ERR_VALUE(place))
			return place + (((pgoff << PAGE_SHIFT) - place) &
					~PMD_MASK);
	}
	return current->mm->get_unmapped_area(file, addr, len, pgoff, flags);
}

#undef thp_get_unmapped_area
#define thp_get_unmapped_area	kvmfr_get_unmapped_area
#endif
/* end shim */

/* shim: iosys_map, needed before 5.18 (February 2022)
 *
 * Was called dma_buf_map, and before 5.11 vmap returned the address.
 */
#if defined(KVMFR_HAS_IOSYS_MAP)
#include <linux/iosys-map.h>
#elif defined(KVMFR_HAS_DMA_BUF_MAP)
#include <linux/dma-buf-map.h>
#define iosys_map		dma_buf_map
#define iosys_map_set_vaddr	dma_buf_map_set_vaddr
#else
struct dma_buf;

struct iosys_map {
	void *vaddr;
};

static inline void iosys_map_set_vaddr(struct iosys_map *map, void *vaddr)
{
	map->vaddr = vaddr;
}

static int kvmfr_vmap_to(struct dma_buf *dmabuf, struct iosys_map *map);
static void kvmfr_vunmap_from(struct dma_buf *dmabuf, struct iosys_map *map);

static void *kvmfr_dmabuf_vmap(struct dma_buf *dmabuf)
{
	struct iosys_map map;

	return kvmfr_vmap_to(dmabuf, &map) ? NULL : map.vaddr;
}

static void kvmfr_dmabuf_vunmap(struct dma_buf *dmabuf, void *vaddr)
{
	struct iosys_map map = { vaddr };

	kvmfr_vunmap_from(dmabuf, &map);
}

/* The functions above become the operations, those of kvmfr.c their bodies. */
#define kvmfr_dmabuf_vmap(dmabuf, map)		kvmfr_vmap_to(dmabuf, map)
#define kvmfr_dmabuf_vunmap(dmabuf, map)	kvmfr_vunmap_from(dmabuf, map)
#endif
/* end shim */

/* shim: map_pages, needed before 5.12 (January 2021)
 *
 * It returned nothing, and there was no fault without mmap_lock.
 */
#ifndef KVMFR_HAS_MAP_PAGES_RESULT
struct vm_fault;

static void kvmfr_vm_map_pages(struct vm_fault *vmf, pgoff_t start, pgoff_t end)
{
}

static vm_fault_t __maybe_unused
kvmfr_vm_map_pages_result(struct vm_fault *vmf, pgoff_t start, pgoff_t end);
#define kvmfr_vm_map_pages(vmf, start, end) \
	kvmfr_vm_map_pages_result(vmf, start, end)
#endif
/* end shim */

/* shim: folio, needed before 5.16 (January 2022)
 *
 * There were no folios; a compound page was known by its head page.
 */
#ifndef KVMFR_HAS_FOLIO
#define folio			page
#define folio_alloc		alloc_pages
#define folio_nr_pages		compound_nr
#define folio_pfn		page_to_pfn
#define folio_put		put_page
#define page_folio		compound_head
#endif
/* end shim */

/* shim: vmemmap_shift, needed before 5.17 (January 2022)
 *
 * Struct pages made by memremap_pages() could not be compound pages. The order
 * is stored in altmap.align, which is only read for a pgmap with an altmap. Ours
 * has none.
 */
#ifndef KVMFR_HAS_VMEMMAP_SHIFT
#define vmemmap_shift	altmap.align

static inline unsigned long pgmap_vmemmap_nr(struct dev_pagemap *pgmap)
{
	return 1;
}
#endif
/* end shim */

/* shim: pluggable_range, needed before 6.11 (August 2024)
 *
 * Didn't exist before 5.12, where memremap_pages() warned about addresses that
 * no struct page can be made for, and didn't know of a direct map that was
 * shortened to randomize it.
 */
#if !defined(DIRECT_MAP_PHYSMEM_END) && !defined(PHYSMEM_END)
static inline struct range kvmfr_pluggable_range(bool need_mapping)
{
	struct range range = { .end = (1ULL << MAX_PHYSMEM_BITS) - 1 };

#ifdef CONFIG_X86_64
	range.end = min_t(u64, range.end, VMALLOC_START - PAGE_OFFSET - 1);
#endif
	return range;
}

#define mhp_get_pluggable_range	kvmfr_pluggable_range
#endif
/* end shim */

/* shim: dma_resv_wait_timeout, needed before 5.19 (April 2022)
 *
 * Which fences are waited for was a bool, and before 5.14 the name ended in _rcu.
 */
#ifndef KVMFR_HAS_DMA_RESV_USAGE
#define dma_resv_usage_rw(write)	(write)
#define DMA_RESV_USAGE_BOOKKEEP		true
#ifndef KVMFR_HAS_DMA_RESV_WAIT
#define dma_resv_wait_timeout		dma_resv_wait_timeout_rcu
#endif
#endif
/* end shim */

/* shim: invalidate_mappings, needed before 7.0 (January 2026)
 *
 * No importer promised to unmap a DMA-BUF when its exporter asked for that, so
 * none is asked.
 */
#ifndef KVMFR_HAS_INVALIDATE_MAPPINGS
#define get_file_active(file)			((void)(file), NULL)
#define dma_buf_invalidate_mappings(dmabuf)	((void)(dmabuf))
#endif
/* end shim */

/* shim: copy_splice_read, needed before 6.5 (May 2023)
 *
 * splice() from a file's read_iter had another name.
 */
#ifndef KVMFR_HAS_COPY_SPLICE_READ
#define copy_splice_read	generic_file_splice_read
#endif
/* end shim */

/* shim: eventfd_signal, needed before 6.8 (November 2023)
 *
 * It took how often to signal as well.
 */
#ifndef KVMFR_HAS_EVENTFD_SIGNAL_ONE
#define eventfd_signal(ctx)	eventfd_signal(ctx, 1)
#endif
/* end shim */

/* shim: count_tails, needed before 6.13 (October 2024)
 *
 * KVM took a reference on each struct page that it found in a mapping by page
 * frame number, and gave up on tail pages, which have none: a guest with such
 * memory stopped with "Bad address". So tails are counted there, and Pss and
 * Mapped come out too low where they share a mapcount. Seen by: pin
 * pci.odd_part_at_an_odd_address_can_be_pinned
 */
#ifndef KVMFR_HAS_KVM_FAULTIN_PFN
#define KVMFR_COUNT_TAILS	1
#endif
/* end shim */

/* What a kernel may have been configured without */

#ifndef CONFIG_TRANSPARENT_HUGEPAGE
#undef KVMFR_HAS_VMF_INSERT_FOLIO_PMD
#endif

#ifndef CONFIG_MODULE_UNLOAD
static inline int module_refcount(struct module *mod)
{
	return 1;
}
#endif

#endif
