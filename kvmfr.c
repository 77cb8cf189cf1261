// SPDX-License-Identifier: GPL-2.0
/*
 * kvmfr: memory shared between a host and a virtual machine
 *
 * On a host the memory is made of the host's own pages and QEMU hands it to a
 * guest as an IVSHMEM device. In a guest it is BAR 2 of that IVSHMEM device.
 * Either way it becomes /dev/kvmfrN, which can be mapped and of which DMA-BUFs
 * can be made. kvmfr.h describes what user space sees.
 *
 * The design in short:
 *
 * - Every mapping of a device, also that of a DMA-BUF, is in one address space
 *   (kvmfr_dev.inode), with page offsets counted from the start of the device.
 *   So one fault handler serves them all, the core can map huge pages wherever
 *   address and offset agree, and one unmap_mapping_range() takes everything
 *   back.
 * - Nothing is kept per mapping or by page of a DMA-BUF: a page is found from
 *   the device and its offset.
 * - The kernel never reads or writes the memory's contents.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/cdev.h>
#include <linux/compat.h>
#include <linux/device.h>
#include <linux/dma-buf.h>
#include <linux/dma-mapping.h>
#include <linux/fs.h>
#include <linux/huge_mm.h>
#include <linux/idr.h>
#include <linux/io.h>
#include <linux/memory_hotplug.h>
#include <linux/memremap.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/mount.h>
#include <linux/pci.h>
#include <linux/rwsem.h>
#include <linux/scatterlist.h>
#include <linux/sizes.h>
#include <linux/slab.h>
#include <linux/vmalloc.h>
#include <linux/xarray.h>

#include "kvmfr.h"
#include "kvmfr_compat.h"

#define KVMFR_MAX_DEVS		64
#define KVMFR_MAX_STATIC	32
#define KVMFR_BAR		2

/* What the core maps with one entry. An allocator without it says so quietly. */
#define KVMFR_HUGE_ORDER	(PMD_SHIFT - PAGE_SHIFT)

/**
 * struct kvmfr_dev - one /dev/kvmfrN and the memory behind it
 * @dev: in class kvmfr; its release frees this structure, long after remove()
 *	if somebody still has the device open
 * @cdev: holds a reference on @dev for every open file
 * @inode: the address space of all mappings; its i_size is the device's size,
 *	without which the core doesn't map huge pages
 * @size: in bytes, a multiple of the page size
 * @huge_size: how much of @size is in pages of PMD_SIZE
 * @lock: protects @gone. Held for reading by whoever is about to use the memory,
 *	only until that use can be seen: in a page's reference count, in a page
 *	table or in @users. Taken inside mmap_lock, the reservation lock of a
 *	DMA-BUF and device_lock; nothing is taken inside of it but what writing
 *	page tables takes.
 * @gone: the memory must not be used any more
 * @users: how many times it is mapped by importers and by vmap
 * @is_static: made of the host's memory, else a BAR
 * @has_pages: there is a struct page for every page of it
 * @blocks: static: the first page of every compound page, by the number of that
 *	page in the device, to which the block is aligned
 * @base: IVSHMEM: physical address of the BAR
 * @cached: IVSHMEM without struct pages: a cached mapping of the whole BAR
 * @pgmap: IVSHMEM with struct pages: what owns them; pgmap_vmemmap_nr() says how
 *	many share a reference count
 *
 * All but @gone and @users is constant once the device is registered.
 */
struct kvmfr_dev {
	struct device dev;
	struct cdev cdev;
	struct inode *inode;
	u64 size;
	u64 huge_size;

	struct rw_semaphore lock;
	bool gone;
	atomic_t users;

	bool is_static;
	bool has_pages;
	struct xarray blocks;
	phys_addr_t base;
	void *cached;
	struct dev_pagemap pgmap;
};

/**
 * struct kvmfr_dmabuf - a part of a device, as a DMA-BUF
 * @kdev: whose memory it is, with a reference
 * @first: number of its first page in the device
 * @nr_pages: its size
 * @lock: protects @mappings. Taken inside the DMA-BUF's reservation lock.
 * @mappings: every struct kvmfr_mapping of it
 *
 * Belongs to the DMA-BUF, whose release frees it.
 */
struct kvmfr_dmabuf {
	struct kvmfr_dev *kdev;
	unsigned long first;
	unsigned long nr_pages;
	struct mutex lock;	/* mappings */
	struct list_head mappings;
};

/* A DMA-BUF mapped for an importer's device, from map_dma_buf to unmap_dma_buf */
struct kvmfr_mapping {
	struct list_head node;
	struct device *dev;
	struct sg_table sgt;
	enum dma_data_direction dir;
};

static dev_t kvmfr_devt;
static DEFINE_IDA(kvmfr_minors);
static struct vfsmount *kvmfr_mnt;
static struct kvmfr_dev *kvmfr_static[KVMFR_MAX_STATIC];
static unsigned int kvmfr_nr_static;

static char *static_size_mb;
module_param(static_size_mb, charp, 0444);
MODULE_PARM_DESC(static_size_mb,
		 "Sizes in MiB of the static devices, separated by commas");

/* ------------------------------ the memory ------------------------------ */

static unsigned long kvmfr_dev_nr_pages(struct kvmfr_dev *kdev)
{
	return kdev->size >> PAGE_SHIFT;
}

/* The page frame at @index of static memory; @n: how many the block has from there. */
static unsigned long kvmfr_static_pfn(struct kvmfr_dev *kdev,
				      unsigned long index, unsigned long *n)
{
	unsigned int order = KVMFR_HUGE_ORDER;
	struct page *block;
	unsigned long nth;

	for (;;) {
		nth = index & ((1UL << order) - 1);
		block = xa_load(&kdev->blocks, index - nth);
		if (block && nth < compound_nr(block))
			break;
		if (WARN_ON_ONCE(!order--))
			return 0;
	}
	*n = compound_nr(block) - nth;
	return page_to_pfn(block) + nth;
}

/*
 * The page frame at @index, which is inside the device. @n says how many pages
 * are wanted from there on and returns how many are neighbours in memory.
 */
static unsigned long kvmfr_dev_pfn(struct kvmfr_dev *kdev, unsigned long index,
				   unsigned long *n)
{
	unsigned long max = *n, pfn, next, left;

	if (!kdev->is_static)
		return PHYS_PFN(kdev->base) + index;

	pfn = kvmfr_static_pfn(kdev, index, n);
	while (*n < max) {
		next = kvmfr_static_pfn(kdev, index + *n, &left);
		if (next != pfn + *n)
			break;
		*n += left;
	}
	*n = min(*n, max);
	return pfn;
}

/*
 * The memory of an IVSHMEM device belongs to the hypervisor: in an encrypted
 * guest it has to be mapped shared, wherever it is mapped.
 */
static pgprot_t kvmfr_dev_pgprot(struct kvmfr_dev *kdev, pgprot_t prot)
{
	return kdev->is_static ? prot : pgprot_decrypted(prot);
}

/*
 * The largest zeroed block that still fits at page @index, so that blocks are
 * aligned in the device as they are in memory. Smaller ones are the way out
 * when memory is fragmented; none is worth an OOM kill.
 */
static struct page *kvmfr_static_alloc_block(unsigned long index,
					     unsigned long nr_pages)
{
	gfp_t gfp = GFP_KERNEL | __GFP_ZERO | __GFP_COMP | __GFP_NOWARN |
		    __GFP_RETRY_MAYFAIL;
	unsigned int order = min_t(unsigned int, KVMFR_HUGE_ORDER,
				   ilog2(nr_pages - index));
	struct page *page;

	if (index)
		order = min_t(unsigned int, order, __ffs(index));

	while (!(page = alloc_pages(gfp, order)) && order)
		order--;
	return page;
}

static void kvmfr_static_free(struct kvmfr_dev *kdev)
{
	struct page *block;
	unsigned long i;

	/* Whoever has pinned a page frees its block. */
	xa_for_each(&kdev->blocks, i, block) {
		put_page(block);
		cond_resched();
	}
	xa_destroy(&kdev->blocks);
}

/* What has been allocated when this fails is freed with @kdev. */
static int kvmfr_static_alloc(struct kvmfr_dev *kdev)
{
	unsigned long nr_pages = kvmfr_dev_nr_pages(kdev);
	struct page *block;
	unsigned long i;
	int ret;

	kdev->is_static = true;
	kdev->has_pages = true;

	for (i = 0; i < nr_pages; i += compound_nr(block)) {
		if (fatal_signal_pending(current))
			return -EINTR;

		block = kvmfr_static_alloc_block(i, nr_pages);
		if (!block)
			return -ENOMEM;
		ret = xa_err(xa_store(&kdev->blocks, i, block, GFP_KERNEL));
		if (ret) {
			put_page(block);
			return ret;
		}

		/*
		 * Compared with i_size before a huge page is mapped; the
		 * allocator leaves the value of the last user there.
		 */
		page_folio(block)->index = i;
		if (compound_nr(block) << PAGE_SHIFT == PMD_SIZE)
			kdev->huge_size += PMD_SIZE;
		cond_resched();
	}
	return 0;
}

/*
 * Gives the BAR struct pages if the kernel can. Without them it can be mapped
 * by processes but not pinned, nor described to an importer. What must not be
 * tried, since older kernels answer with a warning or worse, is found out here.
 * Running out of memory is an error: the next try may do better.
 */
static int kvmfr_bar_map(struct kvmfr_dev *kdev)
{
	struct range pluggable = mhp_get_pluggable_range(true);
	phys_addr_t last = kdev->base + kdev->size - 1;
	struct device *parent = kdev->dev.parent;
	const char *why = "the kernel refuses them";
	int ret = -EOPNOTSUPP;
	void *addr;

	if (!IS_ALIGNED(kdev->base | kdev->size, memremap_compat_align())) {
		why = "it isn't made of whole memory sections";
	} else if (kdev->base < pluggable.start || last > pluggable.end) {
		why = "it is outside the addresses that can have them";
	} else if (pgprot_val(kvmfr_dev_pgprot(kdev, PAGE_KERNEL)) !=
		   pgprot_val(PAGE_KERNEL)) {
		why = "the kernel would map it encrypted";
	} else {
		if (IS_ALIGNED(kdev->base | kdev->size, PMD_SIZE))
			kdev->pgmap.vmemmap_shift = KVMFR_HUGE_ORDER;
		kdev->pgmap.type = MEMORY_DEVICE_GENERIC;
		kdev->pgmap.range.start = kdev->base;
		kdev->pgmap.range.end = last;
		kdev->pgmap.nr_range = 1;
		addr = memremap_pages(&kdev->pgmap, dev_to_node(parent));
		ret = PTR_ERR_OR_ZERO(addr);
	}

	if (!ret) {
		kdev->has_pages = true;
		if (pgmap_vmemmap_nr(&kdev->pgmap) << PAGE_SHIFT == PMD_SIZE)
			kdev->huge_size = kdev->size;
		return 0;
	}
	if (ret == -ENOMEM) {
		dev_err(parent, "no memory for the struct pages of BAR 2, %llu KiB\n",
			kdev->size >> 10);
		return ret;
	}

	/* Never accessed: while it is there, x86 maps the BAR cached elsewhere. */
	kdev->cached = memremap(kdev->base, kdev->size, MEMREMAP_WB);
	dev_info(parent,
		 "BAR 2 at %pa, %llu KiB, has no struct pages: %s (%d); mmap works, DMA-BUFs don't\n",
		 &kdev->base, kdev->size >> 10, why, ret);
	return 0;
}

static void kvmfr_bar_unmap(struct kvmfr_dev *kdev)
{
	if (kdev->has_pages)
		memunmap_pages(&kdev->pgmap);
	else if (kdev->cached)
		memunmap(kdev->cached);
}

/*
 * How many blocks of the BAR somebody still has: mapped or pinned, which shows in
 * the reference count, or locked, as the core does from before it maps a page
 * for a fault until it is through with it.
 */
static unsigned long kvmfr_bar_nr_busy(struct kvmfr_dev *kdev)
{
	unsigned long step = pgmap_vmemmap_nr(&kdev->pgmap);
	unsigned long nr_busy = 0;
	struct page *page;
	unsigned long i;

	if (kdev->is_static || !kdev->has_pages)
		return 0;

	for (i = 0; i < kvmfr_dev_nr_pages(kdev); i += step) {
		page = pfn_to_page(PHYS_PFN(kdev->base) + i);
		if (page_ref_count(page) != 1) {
			nr_busy++;
		} else {
			smp_rmb();	/* locked first, given up last */
			nr_busy += PageLocked(page);
		}
		cond_resched();
	}
	return nr_busy;
}

/* ---------------------------- who may use it ---------------------------- */

static bool kvmfr_dev_gone(struct kvmfr_dev *kdev)
{
	return READ_ONCE(kdev->gone);
}

/* Keeps the memory where it is until kvmfr_dev_unuse(). May last for long. */
static int kvmfr_dev_use(struct kvmfr_dev *kdev)
{
	int ret = -ENODEV;

	down_read(&kdev->lock);
	if (!kdev->gone) {
		atomic_inc(&kdev->users);
		ret = 0;
	}
	up_read(&kdev->lock);
	return ret;
}

static void kvmfr_dev_unuse(struct kvmfr_dev *kdev)
{
	atomic_dec(&kdev->users);
}

/*
 * Takes the memory back: returns when nobody can reach it any more.
 *
 * A fault that was let in before @gone may finish after the first
 * unmap_mapping_range(), but its page is busy all the while, so the loop comes
 * round again. What an importer has mapped and what somebody has pinned can't
 * be taken back; that is waited for, in TASK_IDLE, since it may take as long as
 * its owner likes.
 */
static void kvmfr_dev_revoke(struct kvmfr_dev *kdev)
{
	unsigned long nr_busy;
	unsigned int rounds = 0;
	int users;

	down_write(&kdev->lock);
	WRITE_ONCE(kdev->gone, true);
	up_write(&kdev->lock);

	for (;;) {
		unmap_mapping_range(kdev->inode->i_mapping, 0, 0, 1);
		users = atomic_read(&kdev->users);
		nr_busy = kvmfr_bar_nr_busy(kdev);
		if (!users && !nr_busy)
			break;

		if (++rounds == 10)
			dev_info(&kdev->dev,
				 "unplugged, waiting for %d mapping(s) of DMA-BUFs by importers and %lu block(s) of %lu KiB with pinned pages\n",
				 users, nr_busy,
				 pgmap_vmemmap_nr(&kdev->pgmap) << (PAGE_SHIFT - 10));
		schedule_timeout_idle(msecs_to_jiffies(rounds < 10 ? 10 : 100));
	}

	if (rounds >= 10)
		dev_info(&kdev->dev, "all users are gone\n");
}

/* ------------------------------- mappings ------------------------------- */

static vm_fault_t kvmfr_vm_fault(struct vm_fault *vmf)
{
	struct kvmfr_dev *kdev = vmf->vma->vm_private_data;
	vm_fault_t ret = VM_FAULT_SIGBUS;
	unsigned long pfn, n = 1;

	down_read(&kdev->lock);
	if (kdev->gone || vmf->pgoff >= kvmfr_dev_nr_pages(kdev))
		goto out;

	pfn = kvmfr_dev_pfn(kdev, vmf->pgoff, &n);
	if (kdev->has_pages) {
		/* The core maps the whole huge page if this is part of one. */
		vmf->page = pfn_to_page(pfn);
		get_page(vmf->page);
		ret = 0;
	} else {
		ret = vmf_insert_pfn(vmf->vma, vmf->address, pfn);
	}
out:
	up_read(&kdev->lock);
	return ret;
}

/*
 * There is nothing to map around a fault. But an operation that's called under
 * RCU tells the core that kvmfr_vm_fault() can do without mmap_lock.
 */
static vm_fault_t kvmfr_vm_map_pages(struct vm_fault *vmf, pgoff_t start,
				     pgoff_t end)
{
	return 0;
}

static const struct vm_operations_struct kvmfr_vm_ops = {
	.fault = kvmfr_vm_fault,
	.map_pages = kvmfr_vm_map_pages,
};

/*
 * Maps the pages from @start to @end at once, which takes a small part of the
 * time that a fault for each takes. What fails here is left to the faults.
 */
static void kvmfr_vma_populate(struct vm_area_struct *vma, unsigned long start,
			       unsigned long end)
{
	struct kvmfr_dev *kdev = vma->vm_private_data;
	unsigned long index = vma->vm_pgoff +
			      ((start - vma->vm_start) >> PAGE_SHIFT);
	struct page *pages[32];
	unsigned long pfn, i, n, left;
	int ret;

	for (; start < end; start += n << PAGE_SHIFT, index += n) {
		if (fatal_signal_pending(current))
			break;

		n = min(ARRAY_SIZE(pages), (end - start) >> PAGE_SHIFT);
		pfn = kvmfr_dev_pfn(kdev, index, &n);
		for (i = 0; i < n; i++)
			pages[i] = pfn_to_page(pfn + i);
		left = n;

		down_read(&kdev->lock);
		ret = kdev->gone ? -ENODEV :
		      vm_insert_pages(vma, start, pages, &left);
		up_read(&kdev->lock);
		if (ret)
			break;
		cond_resched();
	}

	/*
	 * vm_insert_pages() has set this, and vma_is_special_huge() would make
	 * the core forget its references on huge pages. There is nothing mixed
	 * here: all pages are counted.
	 */
	vm_flags_clear(vma, VM_MIXEDMAP);
}

/*
 * Huge pages are left to the faults. What can't be in one, since it isn't a
 * whole huge page or not at an address that suits it, is mapped now.
 */
static void kvmfr_vma_populate_small(struct vm_area_struct *vma)
{
	struct kvmfr_dev *kdev = vma->vm_private_data;
	unsigned long start = ALIGN(vma->vm_start, PMD_SIZE);
	unsigned long end = ALIGN_DOWN(vma->vm_end, PMD_SIZE);

	if (kdev->huge_size && start < end &&
	    IS_ALIGNED(vma->vm_start - (vma->vm_pgoff << PAGE_SHIFT), PMD_SIZE)) {
		kvmfr_vma_populate(vma, vma->vm_start, start);
		kvmfr_vma_populate(vma, end, vma->vm_end);
	} else {
		kvmfr_vma_populate(vma, vma->vm_start, vma->vm_end);
	}
}

/*
 * Sets up @vma to map the device's pages from @first on, at most @nr_pages. The
 * VMA's offset, so far counted from @first, is counted from the start of the
 * device afterwards.
 */
static int kvmfr_vma_init(struct vm_area_struct *vma, struct kvmfr_dev *kdev,
			  unsigned long first, unsigned long nr_pages)
{
	if (kvmfr_dev_gone(kdev))
		return -ENODEV;

	/* Not VM_SHARED: a read-only file's shared mappings don't have it. */
	if (!(vma->vm_flags & VM_MAYSHARE))
		return -EINVAL;
	if (vma->vm_pgoff > nr_pages ||
	    vma_pages(vma) > nr_pages - vma->vm_pgoff)
		return -EINVAL;

	/* An importer that maps a DMA-BUF for its user may have set these. */
	vm_flags_clear(vma, VM_IO | VM_PFNMAP | VM_MIXEDMAP);
	vm_flags_set(vma, VM_DONTEXPAND | VM_DONTDUMP);
	vma->vm_page_prot = kvmfr_dev_pgprot(kdev,
					     vm_get_page_prot(vma->vm_flags));
	vma->vm_pgoff += first;
	vma->vm_private_data = kdev;
	vma->vm_ops = &kvmfr_vm_ops;

	if (kdev->has_pages)
		kvmfr_vma_populate_small(vma);
	else
		vm_flags_set(vma, VM_PFNMAP);
	return 0;
}

/* ------------------------------- DMA-BUFs ------------------------------- */

static int kvmfr_dmabuf_attach(struct dma_buf *dmabuf,
			       struct dma_buf_attachment *attach)
{
	struct kvmfr_dmabuf *buf = dmabuf->priv;

	return kvmfr_dev_gone(buf->kdev) ? -ENODEV : 0;
}

/* One entry for each run of neighbouring pages, of at most @max pages. */
static int kvmfr_dmabuf_fill_sgt(struct kvmfr_dmabuf *buf, struct sg_table *sgt,
				 unsigned long max)
{
	unsigned long end = buf->first + buf->nr_pages;
	unsigned int nr_entries = 0;
	struct scatterlist *sg;
	unsigned long pfn, i, n;
	int ret;

	for (i = buf->first; i < end; i += n, nr_entries++) {
		n = min(max, end - i);
		kvmfr_dev_pfn(buf->kdev, i, &n);
		cond_resched();
	}

	ret = sg_alloc_table(sgt, nr_entries, GFP_KERNEL);
	if (ret)
		return ret;

	for (i = buf->first, sg = sgt->sgl; i < end; i += n, sg = sg_next(sg)) {
		n = min(max, end - i);
		pfn = kvmfr_dev_pfn(buf->kdev, i, &n);
		sg_set_page(sg, pfn_to_page(pfn), n << PAGE_SHIFT, 0);
		cond_resched();
	}
	return 0;
}

static struct sg_table *kvmfr_dmabuf_map(struct dma_buf_attachment *attach,
					 enum dma_data_direction dir)
{
	struct kvmfr_dmabuf *buf = attach->dmabuf->priv;
	struct kvmfr_mapping *map;
	unsigned long max;
	int ret;

	/* The latter is what a bounce buffer holds. */
	max = min_t(size_t, dma_get_max_seg_size(attach->dev),
		    dma_max_mapping_size(attach->dev)) >> PAGE_SHIFT;
	if (!max)
		return ERR_PTR(-EINVAL);

	map = kzalloc_obj(*map);
	if (!map)
		return ERR_PTR(-ENOMEM);
	map->dev = attach->dev;
	map->dir = dir;

	ret = kvmfr_dev_use(buf->kdev);
	if (ret)
		goto err_free_map;
	ret = kvmfr_dmabuf_fill_sgt(buf, &map->sgt, max);
	if (ret)
		goto err_unuse;

	/*
	 * DMA-BUFs can overlap, and DMA_API_DEBUG takes two overlapping mappings
	 * of a device for a mistake unless they leave syncing to somebody else.
	 */
	ret = dma_map_sgtable(map->dev, &map->sgt, dir, DMA_ATTR_SKIP_CPU_SYNC);
	if (ret)
		goto err_free_sgt;
	dma_sync_sgtable_for_device(map->dev, &map->sgt, dir);

	mutex_lock(&buf->lock);
	list_add(&map->node, &buf->mappings);
	mutex_unlock(&buf->lock);
	return &map->sgt;

err_free_sgt:
	sg_free_table(&map->sgt);
err_unuse:
	kvmfr_dev_unuse(buf->kdev);
err_free_map:
	kfree(map);
	return ERR_PTR(ret);
}

static void kvmfr_dmabuf_unmap(struct dma_buf_attachment *attach,
			       struct sg_table *sgt,
			       enum dma_data_direction dir)
{
	struct kvmfr_mapping *map = container_of(sgt, struct kvmfr_mapping, sgt);
	struct kvmfr_dmabuf *buf = attach->dmabuf->priv;

	mutex_lock(&buf->lock);
	list_del(&map->node);
	mutex_unlock(&buf->lock);

	dma_sync_sgtable_for_cpu(map->dev, sgt, map->dir);
	dma_unmap_sgtable(map->dev, sgt, map->dir, DMA_ATTR_SKIP_CPU_SYNC);
	sg_free_table(sgt);
	kvmfr_dev_unuse(buf->kdev);
	kfree(map);
}

/*
 * A mapping is synced in the direction it was mapped for: always right, which
 * can't be said of the direction of this one access.
 */
static int kvmfr_dmabuf_begin_cpu_access(struct dma_buf *dmabuf,
					 enum dma_data_direction dir)
{
	struct kvmfr_dmabuf *buf = dmabuf->priv;
	struct kvmfr_mapping *map;

	if (kvmfr_dev_gone(buf->kdev))
		return -ENODEV;

	mutex_lock(&buf->lock);
	list_for_each_entry(map, &buf->mappings, node)
		dma_sync_sgtable_for_cpu(map->dev, &map->sgt, map->dir);
	mutex_unlock(&buf->lock);
	return 0;
}

static int kvmfr_dmabuf_end_cpu_access(struct dma_buf *dmabuf,
				       enum dma_data_direction dir)
{
	struct kvmfr_dmabuf *buf = dmabuf->priv;
	struct kvmfr_mapping *map;

	if (kvmfr_dev_gone(buf->kdev))
		return -ENODEV;

	mutex_lock(&buf->lock);
	list_for_each_entry(map, &buf->mappings, node)
		dma_sync_sgtable_for_device(map->dev, &map->sgt, map->dir);
	mutex_unlock(&buf->lock);
	return 0;
}

static int kvmfr_dmabuf_mmap(struct dma_buf *dmabuf, struct vm_area_struct *vma)
{
	struct kvmfr_dmabuf *buf = dmabuf->priv;

	return kvmfr_vma_init(vma, buf->kdev, buf->first, buf->nr_pages);
}

/* Called for the first user only: the core counts them and keeps the address. */
static int kvmfr_dmabuf_vmap(struct dma_buf *dmabuf, struct iosys_map *map)
{
	struct kvmfr_dmabuf *buf = dmabuf->priv;
	unsigned long pfn, i, n;
	struct page **pages;
	void *vaddr;
	int ret;

	ret = kvmfr_dev_use(buf->kdev);
	if (ret)
		return ret;

	pages = kvmalloc_array(buf->nr_pages, sizeof(*pages),
			       GFP_KERNEL | __GFP_NOWARN);
	if (!pages)
		goto err_unuse;
	for (i = 0; i < buf->nr_pages; cond_resched()) {
		n = buf->nr_pages - i;
		pfn = kvmfr_dev_pfn(buf->kdev, buf->first + i, &n);
		while (n--)
			pages[i++] = pfn_to_page(pfn++);
	}

	vaddr = vmap(pages, buf->nr_pages, VM_MAP,
		     kvmfr_dev_pgprot(buf->kdev, PAGE_KERNEL));
	kvfree(pages);
	if (!vaddr)
		goto err_unuse;
	iosys_map_set_vaddr(map, vaddr);
	return 0;

err_unuse:
	kvmfr_dev_unuse(buf->kdev);
	return -ENOMEM;
}

static void kvmfr_dmabuf_vunmap(struct dma_buf *dmabuf, struct iosys_map *map)
{
	struct kvmfr_dmabuf *buf = dmabuf->priv;

	vunmap(map->vaddr);
	kvmfr_dev_unuse(buf->kdev);
}

static void kvmfr_dmabuf_release(struct dma_buf *dmabuf)
{
	struct kvmfr_dmabuf *buf = dmabuf->priv;

	put_device(&buf->kdev->dev);
	mutex_destroy(&buf->lock);
	kfree(buf);
}

static const struct dma_buf_ops kvmfr_dmabuf_ops = {
	.attach = kvmfr_dmabuf_attach,
	.map_dma_buf = kvmfr_dmabuf_map,
	.unmap_dma_buf = kvmfr_dmabuf_unmap,
	.begin_cpu_access = kvmfr_dmabuf_begin_cpu_access,
	.end_cpu_access = kvmfr_dmabuf_end_cpu_access,
	.mmap = kvmfr_dmabuf_mmap,
	.vmap = kvmfr_dmabuf_vmap,
	.vunmap = kvmfr_dmabuf_vunmap,
	.release = kvmfr_dmabuf_release,
};

static int kvmfr_dmabuf_create(struct file *file, u8 flags, u64 offset, u64 size)
{
	struct kvmfr_dev *kdev = file->private_data;
	DEFINE_DMA_BUF_EXPORT_INFO(info);
	struct kvmfr_dmabuf *buf;
	struct dma_buf *dmabuf;
	int fd;

	if (flags & ~KVMFR_DMABUF_FLAG_CLOEXEC)
		return -EINVAL;
	if (!size || !PAGE_ALIGNED(size) || !PAGE_ALIGNED(offset))
		return -EINVAL;
	if (size > kdev->size || offset > kdev->size - size)
		return -EINVAL;
	/*
	 * There are no read-only DMA-BUFs: an importer asks for no leave to
	 * write through vmap, and its failure is a warning in the log.
	 */
	if ((file->f_mode & (FMODE_READ | FMODE_WRITE)) !=
	    (FMODE_READ | FMODE_WRITE))
		return -EACCES;
	if (!kdev->has_pages)
		return -EOPNOTSUPP;

	buf = kzalloc_obj(*buf);
	if (!buf)
		return -ENOMEM;
	buf->kdev = kdev;
	get_device(&kdev->dev);
	buf->first = offset >> PAGE_SHIFT;
	buf->nr_pages = size >> PAGE_SHIFT;
	mutex_init(&buf->lock);
	INIT_LIST_HEAD(&buf->mappings);

	info.ops = &kvmfr_dmabuf_ops;
	info.size = size;
	info.flags = O_RDWR;
	info.priv = buf;
	info.exp_name = dev_name(&kdev->dev);	/* for fdinfo: whose it is */
	dmabuf = dma_buf_export(&info);
	if (IS_ERR(dmabuf)) {
		put_device(&kdev->dev);
		kfree(buf);
		return PTR_ERR(dmabuf);
	}

	/* The DMA-BUF owns @buf now, and its mappings are the device's. */
	dmabuf->file->f_mapping = kdev->inode->i_mapping;

	fd = dma_buf_fd(dmabuf, flags & KVMFR_DMABUF_FLAG_CLOEXEC ? O_CLOEXEC : 0);
	if (fd < 0)
		dma_buf_put(dmabuf);
	return fd;
}

/* --------------------------- file operations ---------------------------- */

static int kvmfr_open(struct inode *inode, struct file *file)
{
	struct kvmfr_dev *kdev = container_of(inode->i_cdev, struct kvmfr_dev,
					      cdev);

	if (kvmfr_dev_gone(kdev))
		return -ENODEV;
	file->private_data = kdev;
	file->f_mapping = kdev->inode->i_mapping;
	return 0;
}

static loff_t kvmfr_llseek(struct file *file, loff_t offset, int whence)
{
	struct kvmfr_dev *kdev = file->private_data;

	if (kvmfr_dev_gone(kdev))
		return -ENODEV;
	return fixed_size_llseek(file, offset, whence, kdev->size);
}

static int kvmfr_mmap(struct file *file, struct vm_area_struct *vma)
{
	struct kvmfr_dev *kdev = file->private_data;

	return kvmfr_vma_init(vma, kdev, 0, kvmfr_dev_nr_pages(kdev));
}

static long kvmfr_ioctl(struct file *file, unsigned int cmd, unsigned long arg)
{
	struct kvmfr_dev *kdev = file->private_data;
	struct kvmfr_dmabuf_create create;

	if (kvmfr_dev_gone(kdev))
		return -ENODEV;

	switch (cmd) {
	case KVMFR_DMABUF_GETSIZE:
		if (kdev->size > INT_MAX)
			return -EOVERFLOW;
		return kdev->size;

	case KVMFR_DMABUF_CREATE:
		if (copy_from_user(&create, (void __user *)arg, sizeof(create)))
			return -EFAULT;
		return kvmfr_dmabuf_create(file, create.flags, create.offset,
					   create.size);
	default:
		return -ENOTTY;
	}
}

#ifdef CONFIG_COMPAT
/* On i386 a __u64 is aligned to 4 bytes: 20 bytes, and another ioctl number */
struct kvmfr_dmabuf_create32 {
	__u8 flags;
	compat_u64 offset;
	compat_u64 size;
};

#define KVMFR_DMABUF_CREATE32	_IOW('u', 0x42, struct kvmfr_dmabuf_create32)

static long kvmfr_compat_ioctl(struct file *file, unsigned int cmd,
			       unsigned long arg)
{
	struct kvmfr_dev *kdev = file->private_data;
	struct kvmfr_dmabuf_create32 create;

	if (cmd != KVMFR_DMABUF_CREATE32)
		return kvmfr_ioctl(file, cmd, (unsigned long)compat_ptr(arg));

	if (kvmfr_dev_gone(kdev))
		return -ENODEV;
	if (copy_from_user(&create, compat_ptr(arg), sizeof(create)))
		return -EFAULT;
	return kvmfr_dmabuf_create(file, create.flags, create.offset,
				   create.size);
}
#endif

static const struct file_operations kvmfr_fops = {
	.owner = THIS_MODULE,
	.open = kvmfr_open,
	.llseek = kvmfr_llseek,
	.mmap = kvmfr_mmap,
	.get_unmapped_area = thp_get_unmapped_area,
	.unlocked_ioctl = kvmfr_ioctl,
#ifdef CONFIG_COMPAT
	.compat_ioctl = kvmfr_compat_ioctl,
#endif
};

/* --------------------------- device lifecycle --------------------------- */

static struct kvmfr_dev *to_kvmfr_dev(struct device *dev)
{
	return container_of(dev, struct kvmfr_dev, dev);
}

static ssize_t size_show(struct device *dev, struct device_attribute *attr,
			 char *buf)
{
	return sysfs_emit(buf, "%llu\n", to_kvmfr_dev(dev)->size);
}
static DEVICE_ATTR_RO(size);

static ssize_t huge_bytes_show(struct device *dev,
			       struct device_attribute *attr, char *buf)
{
	return sysfs_emit(buf, "%llu\n", to_kvmfr_dev(dev)->huge_size);
}
static DEVICE_ATTR_RO(huge_bytes);

static ssize_t type_show(struct device *dev, struct device_attribute *attr,
			 char *buf)
{
	return sysfs_emit(buf, "%s\n",
			  to_kvmfr_dev(dev)->is_static ? "static" : "pci");
}
static DEVICE_ATTR_RO(type);

static struct attribute *kvmfr_attrs[] = {
	&dev_attr_size.attr,
	&dev_attr_huge_bytes.attr,
	&dev_attr_type.attr,
	NULL,
};
ATTRIBUTE_GROUPS(kvmfr);

static struct class kvmfr_class = {
	.name = "kvmfr",
	.dev_groups = kvmfr_groups,
};

static void kvmfr_dev_release(struct device *dev)
{
	struct kvmfr_dev *kdev = to_kvmfr_dev(dev);

	kvmfr_static_free(kdev);
	iput(kdev->inode);
	kfree(kdev);
}

/* The caller owns the one reference and drops it with put_device(). */
static struct kvmfr_dev *kvmfr_dev_alloc(struct device *parent, u64 size)
{
	struct kvmfr_dev *kdev;
	struct inode *inode;

	kdev = kzalloc_obj(*kdev);
	if (!kdev)
		return ERR_PTR(-ENOMEM);

	inode = alloc_anon_inode(kvmfr_mnt->mnt_sb);
	if (IS_ERR(inode)) {
		kfree(kdev);
		return ERR_CAST(inode);
	}
	i_size_write(inode, size);
	inode->i_flags |= S_NOATIME | S_NOCMTIME;

	kdev->inode = inode;
	kdev->size = size;
	init_rwsem(&kdev->lock);
	xa_init(&kdev->blocks);
	device_initialize(&kdev->dev);
	kdev->dev.class = &kvmfr_class;
	kdev->dev.parent = parent;
	kdev->dev.release = kvmfr_dev_release;
	return kdev;
}

/* After this user space may be inside, so it comes last. */
static int kvmfr_dev_register(struct kvmfr_dev *kdev, unsigned int first_minor)
{
	int minor, ret;

	minor = ida_alloc_range(&kvmfr_minors, first_minor, KVMFR_MAX_DEVS - 1,
				GFP_KERNEL);
	if (minor < 0)
		return minor;

	kdev->dev.devt = kvmfr_devt + minor;
	ret = dev_set_name(&kdev->dev, "kvmfr%d", minor);
	if (ret)
		goto err_free_minor;

	cdev_init(&kdev->cdev, &kvmfr_fops);
	kdev->cdev.owner = THIS_MODULE;
	ret = cdev_device_add(&kdev->cdev, &kdev->dev);
	if (ret)
		goto err_revoke;
	return 0;

err_revoke:
	/* It has failed, and yet somebody may have opened it in the meantime. */
	kvmfr_dev_revoke(kdev);
err_free_minor:
	ida_free(&kvmfr_minors, minor);
	return ret;
}

static void kvmfr_dev_unregister(struct kvmfr_dev *kdev)
{
	cdev_device_del(&kdev->cdev, &kdev->dev);
	ida_free(&kvmfr_minors, MINOR(kdev->dev.devt));
	kvmfr_dev_revoke(kdev);
}

/* --------------------------- static devices ----------------------------- */

static int kvmfr_static_create(unsigned long mb)
{
	struct kvmfr_dev *kdev;
	int ret;

	kdev = kvmfr_dev_alloc(NULL, (u64)mb * SZ_1M);
	if (IS_ERR(kdev))
		return PTR_ERR(kdev);

	ret = kvmfr_static_alloc(kdev);
	if (ret) {
		if (ret == -ENOMEM)
			pr_err("static_size_mb: no memory for a device of %lu MiB; free some or ask for less\n",
			       mb);
		put_device(&kdev->dev);
		return ret;
	}

	kvmfr_static[kvmfr_nr_static++] = kdev;
	return 0;
}

static void kvmfr_static_put_all(void)
{
	while (kvmfr_nr_static)
		put_device(&kvmfr_static[--kvmfr_nr_static]->dev);
}

static int kvmfr_static_register_all(void)
{
	struct kvmfr_dev *kdev;
	unsigned int i;
	int ret;

	for (i = 0; i < kvmfr_nr_static; i++) {
		kdev = kvmfr_static[i];
		ret = kvmfr_dev_register(kdev, i);
		if (ret)
			goto err_unregister;
		dev_info(&kdev->dev, "%llu MiB, %llu MiB of it in huge pages\n",
			 kdev->size / SZ_1M, kdev->huge_size / SZ_1M);
	}
	return 0;

err_unregister:
	while (i--)
		kvmfr_dev_unregister(kvmfr_static[i]);
	return ret;
}

static void kvmfr_static_unregister_all(void)
{
	unsigned int i;

	for (i = 0; i < kvmfr_nr_static; i++)
		kvmfr_dev_unregister(kvmfr_static[i]);
}

/* Turns static_size_mb into @mb[]; returns how many there are, or an error. */
static int kvmfr_static_parse(unsigned long *mb)
{
	unsigned long left = si_mem_available() >> (20 - PAGE_SHIFT);
	char *list, *next, *value;
	int n = 0, ret = 0;

	if (!static_size_mb)
		return 0;

	list = kstrdup(static_size_mb, GFP_KERNEL);
	if (!list)
		return -ENOMEM;

	next = list;
	while ((value = strsep(&next, ","))) {
		if (n == KVMFR_MAX_STATIC) {
			pr_err("static_size_mb: more than %d sizes; at most %d devices are possible\n",
			       KVMFR_MAX_STATIC, KVMFR_MAX_STATIC);
			ret = -EINVAL;
			break;
		}

		ret = kstrtoul(value, 0, &mb[n]);
		if (ret == -ERANGE || (!ret && mb[n] > left)) {
			pr_err("static_size_mb: no memory for \"%s\" MiB; %lu MiB are available for it\n",
			       value, left);
			ret = -ENOMEM;
			break;
		}
		if (ret || !mb[n]) {
			pr_err("static_size_mb: \"%s\" is not a size; expected whole MiB from 1 to %lu, several separated by commas\n",
			       value, left);
			ret = -EINVAL;
			break;
		}
		left -= mb[n++];
	}

	kfree(list);
	return ret ?: n;
}

static int kvmfr_static_create_all(void)
{
	unsigned long mb[KVMFR_MAX_STATIC];
	int i, n, ret;

	n = kvmfr_static_parse(mb);
	if (n < 0)
		return n;

	for (i = 0; i < n; i++) {
		ret = kvmfr_static_create(mb[i]);
		if (ret)
			return ret;
	}
	return 0;
}

/* --------------------------- IVSHMEM devices ---------------------------- */

static int kvmfr_pci_probe(struct pci_dev *pdev, const struct pci_device_id *id)
{
	resource_size_t size = pci_resource_len(pdev, KVMFR_BAR);
	struct kvmfr_dev *kdev;
	int ret;

	if (!(pci_resource_flags(pdev, KVMFR_BAR) & IORESOURCE_MEM) ||
	    !pci_resource_start(pdev, KVMFR_BAR) || !size ||
	    !PAGE_ALIGNED(pci_resource_start(pdev, KVMFR_BAR) | size)) {
		pci_err(pdev, "BAR 2 (%pR) can't be used as shared memory\n",
			&pdev->resource[KVMFR_BAR]);
		return -ENODEV;
	}

	ret = pci_enable_device_mem(pdev);
	if (ret)
		return ret;
	ret = pci_request_region(pdev, KVMFR_BAR, KBUILD_MODNAME);
	if (ret)
		goto err_disable;

	kdev = kvmfr_dev_alloc(&pdev->dev, size);
	if (IS_ERR(kdev)) {
		ret = PTR_ERR(kdev);
		goto err_release_region;
	}
	kdev->base = pci_resource_start(pdev, KVMFR_BAR);
	ret = kvmfr_bar_map(kdev);
	if (ret)
		goto err_put;

	/* The numbers below kvmfr_nr_static are those of the parameter. */
	ret = kvmfr_dev_register(kdev, kvmfr_nr_static);
	if (ret)
		goto err_unmap;

	pci_set_drvdata(pdev, kdev);
	dev_info(&kdev->dev, "%llu KiB of IVSHMEM memory, PCI device %s\n",
		 kdev->size >> 10, pci_name(pdev));
	return 0;

err_unmap:
	kvmfr_bar_unmap(kdev);
err_put:
	put_device(&kdev->dev);
err_release_region:
	pci_release_region(pdev, KVMFR_BAR);
err_disable:
	pci_disable_device(pdev);
	return ret;
}

static void kvmfr_pci_remove(struct pci_dev *pdev)
{
	struct kvmfr_dev *kdev = pci_get_drvdata(pdev);

	kvmfr_dev_unregister(kdev);
	kvmfr_bar_unmap(kdev);
	put_device(&kdev->dev);
	pci_release_region(pdev, KVMFR_BAR);
	pci_disable_device(pdev);
}

static const struct pci_device_id kvmfr_pci_ids[] = {
	{ PCI_DEVICE(PCI_VENDOR_ID_REDHAT_QUMRANET, 0x1110) },
	{ }
};
MODULE_DEVICE_TABLE(pci, kvmfr_pci_ids);

static struct pci_driver kvmfr_pci_driver = {
	.name = KBUILD_MODNAME,
	.id_table = kvmfr_pci_ids,
	.probe = kvmfr_pci_probe,
	.remove = kvmfr_pci_remove,
};

/* ------------------------------- module --------------------------------- */

/*
 * The inodes of the devices have to be in a file system. One of our own would
 * keep this module from being unloaded, or be used after it was; ramfs is in
 * every kernel and never goes away.
 */
static int kvmfr_mount(void)
{
	struct file_system_type *type = get_fs_type("ramfs");

	if (!type)
		return -ENODEV;
	kvmfr_mnt = kern_mount(type);
	return PTR_ERR_OR_ZERO(kvmfr_mnt);
}

/*
 * When a node has been there, somebody may have opened it. All that gets is
 * errors by now, but a module whose init fails is freed whoever still uses it.
 */
static void __init kvmfr_wait_for_users(void)
{
	if (module_refcount(THIS_MODULE) > 1)
		pr_info("waiting for whoever has opened a device\n");
	while (module_refcount(THIS_MODULE) > 1)
		schedule_timeout_idle(msecs_to_jiffies(100));
}

static int __init kvmfr_init(void)
{
	int ret;

	ret = alloc_chrdev_region(&kvmfr_devt, 0, KVMFR_MAX_DEVS, KBUILD_MODNAME);
	if (ret)
		return ret;
	ret = kvmfr_mount();
	if (ret)
		goto err_chrdev;
	ret = class_register(&kvmfr_class);
	if (ret)
		goto err_mount;
	ret = kvmfr_static_create_all();
	if (ret)
		goto err_static;

	ret = kvmfr_static_register_all();
	if (ret)
		goto err_wait;
	ret = pci_register_driver(&kvmfr_pci_driver);
	if (ret)
		goto err_unregister;
	return 0;

err_unregister:
	kvmfr_static_unregister_all();
err_wait:
	pr_err("the devices could not be registered: %d\n", ret);
	kvmfr_wait_for_users();
err_static:
	kvmfr_static_put_all();
	class_unregister(&kvmfr_class);
err_mount:
	kern_unmount(kvmfr_mnt);
err_chrdev:
	unregister_chrdev_region(kvmfr_devt, KVMFR_MAX_DEVS);
	return ret;
}
module_init(kvmfr_init);

static void __exit kvmfr_exit(void)
{
	pci_unregister_driver(&kvmfr_pci_driver);
	kvmfr_static_unregister_all();
	kvmfr_static_put_all();
	class_unregister(&kvmfr_class);
	kern_unmount(kvmfr_mnt);
	ida_destroy(&kvmfr_minors);
	unregister_chrdev_region(kvmfr_devt, KVMFR_MAX_DEVS);
}
module_exit(kvmfr_exit);

MODULE_DESCRIPTION("Memory shared between a host and a virtual machine (IVSHMEM)");
MODULE_AUTHOR("The kvmfr maintainers");
MODULE_LICENSE("GPL");
MODULE_VERSION("1.0.0");
MODULE_IMPORT_NS("DMA_BUF");
