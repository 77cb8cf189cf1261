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
 * - Nothing is stored for each mapping, nor for each page of a DMA-BUF: a page is
 *   found from the device and the offset in it.
 * - The kernel copies the memory for read() and write(), and never interprets
 *   what is in it.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/cdev.h>
#include <linux/compat.h>
#include <linux/device.h>
#include <linux/dma-buf.h>
#include <linux/dma-map-ops.h>
#include <linux/dma-mapping.h>
#include <linux/dma-resv.h>
#include <linux/eventfd.h>
#include <linux/fs.h>
#include <linux/huge_mm.h>
#include <linux/idr.h>
#include <linux/interrupt.h>
#include <linux/io.h>
#include <linux/iommu.h>
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
#include <linux/splice.h>
#include <linux/uio.h>
#include <linux/vmalloc.h>
#include <linux/xarray.h>

#include "kvmfr.h"
#include "kvmfr_compat.h"

#define KVMFR_MAX_DEVS		64
#define KVMFR_MAX_STATIC	32
#define KVMFR_BAR		2
#define KVMFR_BAR_REGS		0
/* Bounds the work of an interrupt, and the kernel memory that users can have. */
#define KVMFR_MAX_LISTENERS	256

/* Registers in BAR 0, see ivshmem-spec of QEMU */
#define KVMFR_REG_POSITION	8
#define KVMFR_REG_DOORBELL	12
#define KVMFR_REGS_SIZE		16

/* 1: tail pages of a BAR are mapped with a refcount. kvmfr_compat.h says when. */
#ifndef KVMFR_COUNT_TAILS
#define KVMFR_COUNT_TAILS	0
#endif

/* Of a huge page. Where the page allocator has no such order it fails quietly. */
#define KVMFR_HUGE_ORDER	(PMD_SHIFT - PAGE_SHIFT)

struct kvmfr_dev;

/**
 * struct kvmfr_run - physically contiguous pages
 * @pfn: the first page frame
 * @nr: how many there are
 */
struct kvmfr_run {
	unsigned long pfn;
	unsigned long nr;
};

/**
 * struct kvmfr_kind - what differs between the kinds of memory
 * @name: what sysfs calls it
 * @has_pages: there is a struct page for every page of the memory
 * @run: the pages at @index, as many as are contiguous, at most @max
 * @pgprot: the protection of a user's or the kernel's mapping
 * @nr_busy: how many blocks of the memory are still mapped or pinned, if that
 *	has to be waited for before the memory is given back
 * @release: gives the memory back
 */
struct kvmfr_kind {
	const char *name;
	bool has_pages;
	struct kvmfr_run (*run)(struct kvmfr_dev *kdev, unsigned long index,
				unsigned long max);
	pgprot_t (*pgprot)(pgprot_t prot);
	unsigned long (*nr_busy)(struct kvmfr_dev *kdev);
	void (*release)(struct kvmfr_dev *kdev);
};

/**
 * struct kvmfr_dev - one /dev/kvmfrN and the memory behind it
 * @dev: in class kvmfr; its release frees this structure, long after remove()
 *	if somebody still has the device open
 * @cdev: holds a reference on @dev for every open file
 * @inode: the address space of all mappings; its i_size is the device's size,
 *	without which the core doesn't map huge pages
 * @kind: what kind of memory it is
 * @size: in bytes, a multiple of the page size
 * @huge_size: how much of @size is in pages of PMD_SIZE
 * @lock: protects @gone. Held for reading by whoever is about to use the memory,
 *	only until that use can be seen: in a page's reference count, in a page
 *	table or in @users. Taken inside mmap_lock, the reservation lock of a
 *	DMA-BUF and device_lock; nothing is taken inside of it but what writing
 *	page tables takes.
 * @gone: the memory must not be used any more
 * @openers: how many open files and DMA-BUFs there are. Grows from 0 only while
 *	@lock is held for reading and @gone is not set.
 * @users: how many importers and vmap() have it mapped, and how many read()
 *	and write() calls are copying it
 * @told: bit 0: the log has said that a mapping can't have huge pages
 * @blocks: static: the folios, by the number of their first page in the device,
 *	to which they are aligned
 * @base: IVSHMEM: physical address of the BAR
 * @cached: IVSHMEM without struct pages: the kernel's mapping of the BAR, or NULL
 * @pgmap: IVSHMEM with struct pages: what owns them; pgmap_vmemmap_nr() says how
 *	many are one folio
 * @idle_refs: IVSHMEM with struct pages: refcount of an unused folio
 * @bell: IVSHMEM with MSI-X: its interrupts, else NULL
 * @dmabufs_lock: protects @dmabufs. The reservation lock of a DMA-BUF is taken
 *	inside of it.
 * @dmabufs: every struct kvmfr_dmabuf of the device
 *
 * All but @gone, @openers, @users, @told and @dmabufs is constant once the
 * device is registered.
 */
struct kvmfr_dev {
	struct device dev;
	struct cdev cdev;
	struct inode *inode;
	const struct kvmfr_kind *kind;
	u64 size;
	u64 huge_size;

	struct rw_semaphore lock;
	bool gone;
	atomic_t openers;
	atomic_t users;
	unsigned long told;

	struct xarray blocks;
	phys_addr_t base;
	void *cached;
	struct dev_pagemap pgmap;
	int idle_refs;
	struct kvmfr_doorbell *bell;

	struct mutex dmabufs_lock;	/* dmabufs */
	struct list_head dmabufs;
};

/**
 * struct kvmfr_vector - what happens when a peer rings one of our vectors
 * @bell: whose vector it is
 * @eventfds: every struct kvmfr_listener of it
 */
struct kvmfr_vector {
	struct kvmfr_doorbell *bell;
	struct list_head eventfds;
};

/**
 * struct kvmfr_doorbell - the interrupts of an IVSHMEM device with MSI-X
 * @pdev: the PCI device
 * @regs: BAR 0; may be accessed while kvmfr_dev.lock is held and the device is
 *	not gone
 * @lock: protects @nr_listeners and the lists of @vectors; taken in hard
 *	interrupt context
 * @nr_listeners: of all vectors, at most KVMFR_MAX_LISTENERS
 * @nr_vectors: how many vectors interrupt us
 * @vectors: those
 */
struct kvmfr_doorbell {
	struct pci_dev *pdev;
	void __iomem *regs;
	spinlock_t lock;	/* nr_listeners, the lists of vectors */
	unsigned int nr_listeners;
	unsigned int nr_vectors;
	struct kvmfr_vector vectors[];
};

/* What the doorbell's ioctls take */
union kvmfr_doorbell_arg {
	struct kvmfr_doorbell_info info;
	struct kvmfr_doorbell_ring ring;
	struct kvmfr_doorbell_eventfd eventfd;
};

/* An eventfd on a vector, and the open file that it came through */
struct kvmfr_listener {
	struct list_head node;
	struct eventfd_ctx *ctx;
	struct file *file;
};

/**
 * struct kvmfr_dmabuf - a part of a device, as a DMA-BUF
 * @node: in kvmfr_dev.dmabufs
 * @dmabuf: the DMA-BUF itself
 * @kdev: whose memory it is, with a reference
 * @first: number of its first page in the device
 * @nr_pages: its size
 * @lock: protects @mappings. Taken inside the DMA-BUF's reservation lock.
 * @mappings: every struct kvmfr_mapping of it by a device that isn't coherent
 *
 * Belongs to the DMA-BUF, whose release frees it.
 */
struct kvmfr_dmabuf {
	struct list_head node;
	struct dma_buf *dmabuf;
	struct kvmfr_dev *kdev;
	unsigned long first;
	unsigned long nr_pages;
	struct mutex lock;	/* mappings */
	struct list_head mappings;
};

/*
 * A DMA-BUF mapped for an importer's device, from map_dma_buf to unmap_dma_buf.
 * @node is in the DMA-BUF's list if CPU caches have to be written back and
 * invalidated for the device.
 */
struct kvmfr_mapping {
	struct list_head node;
	struct device *dev;
	struct sg_table sgt;
	enum dma_data_direction dir;
};

static dev_t kvmfr_devt;
static DEFINE_IDA(kvmfr_minors);
static struct vfsmount *kvmfr_mnt;

/* ------------------------------ the memory ------------------------------ */

static unsigned long kvmfr_dev_nr_pages(struct kvmfr_dev *kdev)
{
	return kdev->size >> PAGE_SHIFT;
}

/* The pages at @index, as many as are physically contiguous, at most @max. */
static struct kvmfr_run kvmfr_dev_run(struct kvmfr_dev *kdev,
				      unsigned long index, unsigned long max)
{
	return kdev->kind->run(kdev, index, max);
}

/* ------------------------ the memory: static ---------------------------- */

/* The part of a folio from @index to the folio's end. */
static struct kvmfr_run kvmfr_static_rest(struct kvmfr_dev *kdev,
					  unsigned long index)
{
	unsigned int order = KVMFR_HUGE_ORDER;
	struct kvmfr_run rest = { };
	struct folio *folio;
	unsigned long nth;

	for (;;) {
		nth = index & ((1UL << order) - 1);
		folio = xa_load(&kdev->blocks, index - nth);
		if (folio && nth < folio_nr_pages(folio))
			break;
		if (WARN_ON_ONCE(!order--))
			return rest;
	}
	rest.pfn = folio_pfn(folio) + nth;
	rest.nr = folio_nr_pages(folio) - nth;
	return rest;
}

static struct kvmfr_run kvmfr_static_run(struct kvmfr_dev *kdev,
					 unsigned long index, unsigned long max)
{
	struct kvmfr_run run = kvmfr_static_rest(kdev, index), next;

	while (run.nr < max) {
		next = kvmfr_static_rest(kdev, index + run.nr);
		if (next.pfn != run.pfn + run.nr)
			break;
		run.nr += next.nr;
	}
	run.nr = min(run.nr, max);
	return run;
}

static pgprot_t kvmfr_static_pgprot(pgprot_t prot)
{
	return prot;
}

/*
 * The largest zeroed folio that still fits at page @index, so that folios are
 * aligned in the device as they are in memory. Smaller ones are the way out
 * when memory is fragmented; none is worth an OOM kill.
 *
 * @failed is the smallest order whose allocation has failed so far. From that
 * order on the allocator is asked not to try hard: compaction would most likely
 * fail again, and would be tried for each folio.
 */
static struct folio *kvmfr_static_alloc_folio(unsigned long index,
					      unsigned long nr_pages,
					      unsigned int *failed)
{
	unsigned int order = min_t(unsigned int, KVMFR_HUGE_ORDER,
				   ilog2(nr_pages - index));
	struct folio *folio;
	gfp_t gfp;

	if (index)
		order = min_t(unsigned int, order, __ffs(index));

	for (;; order--) {
		gfp = GFP_KERNEL | __GFP_ZERO | __GFP_COMP | __GFP_NOWARN;
		gfp |= order && order >= *failed ? __GFP_NORETRY :
						   __GFP_RETRY_MAYFAIL;
		folio = folio_alloc(gfp, order);
		if (folio || !order)
			return folio;
		*failed = min(*failed, order);
	}
}

static void kvmfr_static_release(struct kvmfr_dev *kdev)
{
	struct folio *folio;
	unsigned long i;

	/* A folio with pinned pages is freed by the last unpin. */
	xa_for_each(&kdev->blocks, i, folio) {
		folio_put(folio);
		cond_resched();
	}
	xa_destroy(&kdev->blocks);
}

static const struct kvmfr_kind kvmfr_static_kind = {
	.name = "static",
	.has_pages = true,
	.run = kvmfr_static_run,
	.pgprot = kvmfr_static_pgprot,
	.release = kvmfr_static_release,
};

/* When this fails kvmfr_dev_free() frees what has been allocated. */
static int kvmfr_static_alloc(struct kvmfr_dev *kdev)
{
	unsigned long nr_pages = kvmfr_dev_nr_pages(kdev);
	unsigned int failed = KVMFR_HUGE_ORDER + 1;
	/* For the XArray: no OOM kill for it either, when the node is full. */
	gfp_t gfp = GFP_KERNEL | __GFP_RETRY_MAYFAIL | __GFP_NOWARN;
	struct folio *folio;
	unsigned long i;
	int ret;

	kdev->kind = &kvmfr_static_kind;

	for (i = 0; i < nr_pages; i += folio_nr_pages(folio)) {
		if (fatal_signal_pending(current))
			return -EINTR;

		folio = kvmfr_static_alloc_folio(i, nr_pages, &failed);
		if (!folio)
			return -ENOMEM;
		ret = xa_err(xa_store(&kdev->blocks, i, folio, gfp));
		if (ret) {
			folio_put(folio);
			return ret;
		}

		/*
		 * The core compares folio->index with i_size before it maps a
		 * huge page. The allocator leaves the last user's index there.
		 */
		folio->index = i;
		if (folio_nr_pages(folio) << PAGE_SHIFT == PMD_SIZE)
			kdev->huge_size += PMD_SIZE;
		cond_resched();
	}
	return 0;
}

/* ------------------------ the memory: a BAR ----------------------------- */

/*
 * The memory of an IVSHMEM device belongs to the hypervisor: in an encrypted
 * guest it has to be mapped shared, wherever it is mapped.
 */
static pgprot_t kvmfr_bar_pgprot(pgprot_t prot)
{
	return pgprot_decrypted(prot);
}

static bool kvmfr_bar_encrypted(void)
{
	return pgprot_val(kvmfr_bar_pgprot(PAGE_KERNEL)) !=
	       pgprot_val(PAGE_KERNEL);
}

static struct kvmfr_run kvmfr_bar_run(struct kvmfr_dev *kdev,
				      unsigned long index, unsigned long max)
{
	return (struct kvmfr_run){ PHYS_PFN(kdev->base) + index, max };
}

/*
 * How many folios of the BAR are in use. Mappings and pins show in the refcount.
 * A fault in progress shows in the folio lock: the core locks the folio before it
 * maps it, and unlocks it when another CPU may have unmapped it already.
 */
static unsigned long kvmfr_bar_nr_busy(struct kvmfr_dev *kdev)
{
	unsigned long step = pgmap_vmemmap_nr(&kdev->pgmap);
	unsigned long nr_busy = 0;
	struct page *page;
	unsigned long i;

	for (i = 0; i < kvmfr_dev_nr_pages(kdev); i += step) {
		page = pfn_to_page(PHYS_PFN(kdev->base) + i);
		if (page_ref_count(page) != kdev->idle_refs) {
			nr_busy++;
		} else {
			smp_rmb();	/* the lock outlasts the reference */
			nr_busy += PageLocked(page);
		}
		cond_resched();
	}
	return nr_busy;
}

static void kvmfr_bar_release_pages(struct kvmfr_dev *kdev)
{
	memunmap_pages(&kdev->pgmap);
}

static void kvmfr_bar_release_cached(struct kvmfr_dev *kdev)
{
	if (kdev->cached)
		memunmap(kdev->cached);
}

static const struct kvmfr_kind kvmfr_bar_paged_kind = {
	.name = "pci",
	.has_pages = true,
	.run = kvmfr_bar_run,
	.pgprot = kvmfr_bar_pgprot,
	.nr_busy = kvmfr_bar_nr_busy,
	.release = kvmfr_bar_release_pages,
};

static const struct kvmfr_kind kvmfr_bar_pageless_kind = {
	.name = "pci",
	.run = kvmfr_bar_run,
	.pgprot = kvmfr_bar_pgprot,
	.release = kvmfr_bar_release_cached,
};

/*
 * MEMORY_DEVICE_GENERIC, as device DAX has: ordinary struct pages, which can be
 * mapped, pinned for the long term and imported by any device. Not
 * MEMORY_DEVICE_PCI_P2PDMA, although this is a BAR: that is for memory which
 * other devices reach over the PCI bus. It refuses long-term pins, and importers
 * that the bus doesn't connect. This BAR is the hypervisor's RAM: the CPU caches
 * it, and devices reach it like all other RAM of the guest.
 *
 * With vmemmap_shift the pages are folios of PMD_SIZE, which the core maps as
 * huge pages. Since 5.19 most of the tail struct pages of such a folio are one
 * page of the vmemmap, mapped many times ("vmemmap optimization"): what one of
 * them counts, others count as well. So tails must not be mapped one by one, see
 * kvmfr_vma_wants_pfns().
 */
static int kvmfr_bar_make_pages(struct kvmfr_dev *kdev)
{
	void *addr;

	if (IS_ALIGNED(kdev->base | kdev->size, PMD_SIZE))
		kdev->pgmap.vmemmap_shift = KVMFR_HUGE_ORDER;
	kdev->pgmap.type = MEMORY_DEVICE_GENERIC;
	kdev->pgmap.range.start = kdev->base;
	kdev->pgmap.range.end = kdev->base + kdev->size - 1;
	kdev->pgmap.nr_range = 1;
	addr = memremap_pages(&kdev->pgmap, dev_to_node(kdev->dev.parent));
	if (IS_ERR(addr))
		return PTR_ERR(addr);

	kdev->kind = &kvmfr_bar_paged_kind;
	kdev->idle_refs = page_ref_count(pfn_to_page(PHYS_PFN(kdev->base)));
	if (pgmap_vmemmap_nr(&kdev->pgmap) << PAGE_SHIFT == PMD_SIZE)
		kdev->huge_size = kdev->size;
	return 0;
}

/*
 * Gives the BAR struct pages if the kernel can. Without them it can be mapped
 * by processes but not pinned, nor described to an importer. What makes
 * memremap_pages() of older kernels warn or crash is sorted out before.
 * Running out of memory is an error: the next try may do better.
 */
static int kvmfr_bar_map(struct kvmfr_dev *kdev)
{
	struct range pluggable = mhp_get_pluggable_range(true);
	phys_addr_t last = kdev->base + kdev->size - 1;
	struct device *parent = kdev->dev.parent;
	const char *why = "the kernel refuses them";
	int ret = -EOPNOTSUPP;

	if (!IS_ALIGNED(kdev->base | kdev->size, memremap_compat_align()))
		why = "it isn't made of whole memory sections";
	else if (kdev->base < pluggable.start || last > pluggable.end)
		why = "it is outside the addresses that can have them";
	else if (kvmfr_bar_encrypted())
		why = "the kernel would map it encrypted";
	else
		ret = kvmfr_bar_make_pages(kdev);

	if (!ret)
		return 0;
	if (ret == -ENOMEM) {
		dev_err(parent, "no memory for the struct pages of BAR 2, %llu KiB\n",
			kdev->size >> 10);
		return ret;
	}

	/*
	 * For read() and write(). It also makes the PAT of x86 know the BAR as
	 * write-back memory, which users' mappings then are as well. Not where
	 * the size is too large for memremap() (32 bit), nor in an encrypted
	 * guest: what it maps is encrypted, and the hypervisor could not read it.
	 */
	if (kdev->size <= SIZE_MAX && !kvmfr_bar_encrypted())
		kdev->cached = memremap(kdev->base, kdev->size, MEMREMAP_WB);
	kdev->kind = &kvmfr_bar_pageless_kind;
	dev_info(parent,
		 "BAR 2 at %pa, %llu KiB, has no struct pages: %s (%d); mmap works, DMA-BUFs don't\n",
		 &kdev->base, kdev->size >> 10, why, ret);
	return 0;
}

/* ------------------------------ doorbells ------------------------------- */

static irqreturn_t kvmfr_doorbell_interrupt(int irq, void *data)
{
	struct kvmfr_vector *vector = data;
	struct kvmfr_listener *listener;

	spin_lock(&vector->bell->lock);
	list_for_each_entry(listener, &vector->eventfds, node)
		eventfd_signal(listener->ctx);
	spin_unlock(&vector->bell->lock);
	return IRQ_HANDLED;
}

/*
 * Removes the eventfds of vectors @first to @last that came through @file. If
 * @file is NULL, removes all of them, and signals each before.
 */
static void kvmfr_doorbell_drop(struct kvmfr_doorbell *bell, struct file *file,
				unsigned int first, unsigned int last)
{
	struct kvmfr_listener *listener, *next;
	LIST_HEAD(dropped);
	unsigned int i;

	spin_lock_irq(&bell->lock);
	for (i = first; i <= last; i++)
		list_for_each_entry_safe(listener, next,
					 &bell->vectors[i].eventfds, node)
			if (!file || listener->file == file) {
				list_move(&listener->node, &dropped);
				bell->nr_listeners--;
			}
	spin_unlock_irq(&bell->lock);

	list_for_each_entry_safe(listener, next, &dropped, node) {
		if (!file)
			eventfd_signal(listener->ctx);
		eventfd_ctx_put(listener->ctx);
		kfree(listener);
	}
}

static int kvmfr_doorbell_listen(struct kvmfr_doorbell *bell, struct file *file,
				 const struct kvmfr_doorbell_eventfd *arg)
{
	struct kvmfr_listener *listener;
	int ret = 0;

	if (arg->vector >= bell->nr_vectors)
		return -EINVAL;
	if (arg->fd == -1) {
		kvmfr_doorbell_drop(bell, file, arg->vector, arg->vector);
		return 0;
	}

	listener = kzalloc_obj(*listener);
	if (!listener)
		return -ENOMEM;
	listener->file = file;
	listener->ctx = eventfd_ctx_fdget(arg->fd);
	if (IS_ERR(listener->ctx)) {
		ret = PTR_ERR(listener->ctx);
		goto err_free;
	}

	spin_lock_irq(&bell->lock);
	if (bell->nr_listeners == KVMFR_MAX_LISTENERS) {
		ret = -ENOSPC;
	} else {
		bell->nr_listeners++;
		list_add_tail(&listener->node,
			      &bell->vectors[arg->vector].eventfds);
	}
	spin_unlock_irq(&bell->lock);
	if (!ret)
		return 0;

	eventfd_ctx_put(listener->ctx);
err_free:
	kfree(listener);
	return ret;
}

static int kvmfr_doorbell_ring(struct kvmfr_doorbell *bell,
			       const struct kvmfr_doorbell_ring *ring)
{
	if (ring->peer > U16_MAX || ring->vector > U16_MAX)
		return -EINVAL;
	/* What was written to the memory is there before the peer is interrupted. */
	wmb();
	writel(ring->peer << 16 | ring->vector, bell->regs + KVMFR_REG_DOORBELL);
	return 0;
}

static u32 kvmfr_doorbell_id(struct kvmfr_doorbell *bell)
{
	return readl(bell->regs + KVMFR_REG_POSITION);
}

/* Called with kvmfr_dev.lock held: meanwhile the device can't be unplugged. */
static int kvmfr_doorbell_locked(struct file *file, unsigned int cmd,
				 union kvmfr_doorbell_arg *arg)
{
	struct kvmfr_dev *kdev = file->private_data;

	if (kdev->gone)
		return -ENODEV;
	if (!kdev->bell)
		return -EOPNOTSUPP;

	switch (cmd) {
	case KVMFR_DOORBELL_INFO:
		arg->info.id = kvmfr_doorbell_id(kdev->bell);
		arg->info.vectors = kdev->bell->nr_vectors;
		return 0;
	case KVMFR_DOORBELL_RING:
		if (!(file->f_mode & FMODE_WRITE))
			return -EACCES;
		return kvmfr_doorbell_ring(kdev->bell, &arg->ring);
	default:
		return kvmfr_doorbell_listen(kdev->bell, file, &arg->eventfd);
	}
}

static int kvmfr_doorbell_ioctl(struct file *file, unsigned int cmd,
				void __user *user)
{
	struct kvmfr_dev *kdev = file->private_data;
	union kvmfr_doorbell_arg arg = { };
	int ret;

	if (_IOC_DIR(cmd) & _IOC_WRITE &&
	    copy_from_user(&arg, user, _IOC_SIZE(cmd)))
		return -EFAULT;

	down_read(&kdev->lock);
	ret = kvmfr_doorbell_locked(file, cmd, &arg);
	up_read(&kdev->lock);

	if (!ret && _IOC_DIR(cmd) & _IOC_READ &&
	    copy_to_user(user, &arg, _IOC_SIZE(cmd)))
		return -EFAULT;
	return ret;
}

static void kvmfr_doorbell_free_irqs(struct kvmfr_doorbell *bell, unsigned int n)
{
	while (n--)
		pci_free_irq(bell->pdev, n, &bell->vectors[n]);
	pci_free_irq_vectors(bell->pdev);
}

/* Frees the interrupts and the registers, and wakes up whoever waits for one. */
static void kvmfr_doorbell_silence(struct kvmfr_doorbell *bell)
{
	if (!bell)
		return;
	kvmfr_doorbell_free_irqs(bell, bell->nr_vectors);
	kvmfr_doorbell_drop(bell, NULL, 0, bell->nr_vectors - 1);
	pci_clear_master(bell->pdev);
	pci_iounmap(bell->pdev, bell->regs);
	pci_release_region(bell->pdev, KVMFR_BAR_REGS);
}

static int kvmfr_doorbell_request_irqs(struct kvmfr_doorbell *bell)
{
	unsigned int i;
	int ret;

	for (i = 0; i < bell->nr_vectors; i++) {
		bell->vectors[i].bell = bell;
		INIT_LIST_HEAD(&bell->vectors[i].eventfds);
		ret = pci_request_irq(bell->pdev, i, kvmfr_doorbell_interrupt,
				      NULL, &bell->vectors[i], "kvmfr:%s-%u",
				      pci_name(bell->pdev), i);
		if (ret) {
			kvmfr_doorbell_free_irqs(bell, i);
			return ret;
		}
	}
	return 0;
}

static struct kvmfr_doorbell *kvmfr_doorbell_create(struct pci_dev *pdev)
{
	struct kvmfr_doorbell *bell;
	int n, ret;

	if (pci_resource_len(pdev, KVMFR_BAR_REGS) < KVMFR_REGS_SIZE)
		return ERR_PTR(-ENXIO);
	ret = pci_request_region(pdev, KVMFR_BAR_REGS, KBUILD_MODNAME);
	if (ret)
		return ERR_PTR(ret);

	pci_set_master(pdev);
	n = pci_alloc_irq_vectors(pdev, 1, pci_msix_vec_count(pdev), PCI_IRQ_MSIX);
	if (n < 0) {
		ret = n;
		goto err_release;
	}

	ret = -ENOMEM;
	bell = kzalloc(struct_size(bell, vectors, n), GFP_KERNEL);
	if (!bell)
		goto err_free_vectors;
	bell->pdev = pdev;
	bell->nr_vectors = n;
	spin_lock_init(&bell->lock);
	bell->regs = pci_iomap(pdev, KVMFR_BAR_REGS, KVMFR_REGS_SIZE);
	if (!bell->regs)
		goto err_free_bell;

	ret = kvmfr_doorbell_request_irqs(bell);
	if (!ret)
		return bell;

	pci_iounmap(pdev, bell->regs);
	kfree(bell);
	goto err_release;	/* the vectors are freed already */

err_free_bell:
	kfree(bell);
err_free_vectors:
	pci_free_irq_vectors(pdev);
err_release:
	pci_clear_master(pdev);
	pci_release_region(pdev, KVMFR_BAR_REGS);
	return ERR_PTR(ret);
}

/*
 * MSI-X is all that tells an ivshmem-doorbell from an ivshmem-plain. Without
 * interrupts it still is memory.
 */
static void kvmfr_doorbell_probe(struct kvmfr_dev *kdev, struct pci_dev *pdev)
{
	struct kvmfr_doorbell *bell;

	if (!pdev->msix_cap)
		return;
	bell = kvmfr_doorbell_create(pdev);
	if (IS_ERR(bell))
		pci_info(pdev, "no doorbell: its MSI-X interrupts can't be had (%ld); the memory works\n",
			 PTR_ERR(bell));
	else
		kdev->bell = bell;
}

/* ---------------------------- who may use it ---------------------------- */

static bool kvmfr_dev_gone(struct kvmfr_dev *kdev)
{
	return READ_ONCE(kdev->gone);
}

/* Until kvmfr_dev_unuse(), however late that is, the memory is not given back. */
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

/* Reboot, poweroff, halt or kexec has begun: it waits for every device_lock. */
static bool kvmfr_going_down(void)
{
	return system_state > SYSTEM_RUNNING && system_state < SYSTEM_SUSPEND;
}

/*
 * Tells the importers that can be revoked to unmap the memory. They do it soon;
 * kvmfr_dev_revoke() waits for it as it waits for all other importers.
 */
static void kvmfr_dev_revoke_importers(struct kvmfr_dev *kdev)
{
	struct kvmfr_dmabuf *buf;

	mutex_lock(&kdev->dmabufs_lock);
	list_for_each_entry(buf, &kdev->dmabufs, node) {
		if (!get_file_active(&buf->dmabuf->file))
			continue;	/* its release waits for dmabufs_lock */
		dma_resv_lock(buf->dmabuf->resv, NULL);
		dma_buf_invalidate_mappings(buf->dmabuf);
		dma_resv_wait_timeout(buf->dmabuf->resv, DMA_RESV_USAGE_BOOKKEEP,
				      false, MAX_SCHEDULE_TIMEOUT);
		dma_resv_unlock(buf->dmabuf->resv);
		dma_buf_put(buf->dmabuf);
	}
	mutex_unlock(&kdev->dmabufs_lock);
}

/*
 * Takes the memory back: true when nobody can reach it any more, false if the
 * machine goes down meanwhile. Then nothing of the device may be freed.
 *
 * A fault that saw @gone unset may map its page after the first
 * unmap_mapping_range(). Its folio is counted as busy until then, so the loop
 * unmaps it in a later round. What other importers have mapped and what is pinned
 * can't be taken back and is waited for as long as it takes, in TASK_IDLE. A
 * signal doesn't end the wait: remove() can't fail, and the pages would be given
 * back while a device writes to them.
 */
static bool kvmfr_dev_revoke(struct kvmfr_dev *kdev)
{
	unsigned long nr_busy;
	unsigned int rounds = 0;
	int users;

	down_write(&kdev->lock);
	WRITE_ONCE(kdev->gone, true);
	up_write(&kdev->lock);
	kvmfr_doorbell_silence(kdev->bell);
	kvmfr_dev_revoke_importers(kdev);

	for (;;) {
		unmap_mapping_range(kdev->inode->i_mapping, 0, 0, 1);
		users = atomic_read(&kdev->users);
		nr_busy = kdev->kind->nr_busy ? kdev->kind->nr_busy(kdev) : 0;
		if (!users && !nr_busy)
			break;
		if (kvmfr_going_down())
			return false;

		if (++rounds == 10)
			dev_info(&kdev->dev,
				 "unplugged, waiting for %d user(s) (importers of DMA-BUFs, read, write) and %lu block(s) of %lu KiB with pinned pages (VFIO, io_uring); end the programs that use it, hot-plug waits meanwhile\n",
				 users, nr_busy,
				 pgmap_vmemmap_nr(&kdev->pgmap) << (PAGE_SHIFT - 10));
		schedule_timeout_idle(msecs_to_jiffies(rounds < 10 ? 10 : 100));
	}

	if (rounds >= 10)
		dev_info(&kdev->dev, "all users are gone\n");
	return true;
}

/*
 * The kernel's address of the byte at @pos, which is inside the device. *@n is how
 * many bytes are wanted; afterwards, how many can be accessed there at once. They
 * end with the folio at the latest: hardened usercopy refuses to cross one's end.
 */
static void *kvmfr_dev_addr(struct kvmfr_dev *kdev, u64 pos, size_t *n)
{
	unsigned long pfn, nr, good;
	struct folio *folio;

	if (!kdev->kind->has_pages)
		return kdev->cached ? kdev->cached + pos : ERR_PTR(-EOPNOTSUPP);

	pfn = kvmfr_dev_run(kdev, pos >> PAGE_SHIFT, 1).pfn;
	folio = page_folio(pfn_to_page(pfn));
	nr = folio_pfn(folio) + folio_nr_pages(folio) - pfn;
	nr = min(nr, DIV_ROUND_UP(offset_in_page(pos) + *n, PAGE_SIZE));
	for (good = 0; good < nr; good++)
		if (PageHWPoison(pfn_to_page(pfn + good)))
			break;
	if (!good)
		return ERR_PTR(-EIO);

	*n = min_t(size_t, *n, (good << PAGE_SHIFT) - offset_in_page(pos));
	return page_address(pfn_to_page(pfn)) + offset_in_page(pos);
}

/* ------------------------------- mappings ------------------------------- */

/*
 * Whether @vma has room for a huge page: a whole one of the device's, at an
 * address that agrees with its place in the device.
 */
static bool kvmfr_vma_fits_huge(struct vm_area_struct *vma)
{
	struct kvmfr_dev *kdev = vma->vm_private_data;

	return kdev->huge_size &&
	       ALIGN(vma->vm_start, PMD_SIZE) < ALIGN_DOWN(vma->vm_end, PMD_SIZE) &&
	       IS_ALIGNED(vma->vm_start - (vma->vm_pgoff << PAGE_SHIFT), PMD_SIZE);
}

/*
 * Maps what is around the fault in the same table of page table entries, by page
 * frame number. Not in mmap(): a VMA that is still being made isn't in the address
 * space, so kvmfr_dev_revoke() could not find it, and nothing is counted that it
 * would wait for.
 */
static vm_fault_t kvmfr_vm_fault_pfn(struct vm_fault *vmf)
{
	struct vm_area_struct *vma = vmf->vma;
	struct kvmfr_dev *kdev = vma->vm_private_data;
	unsigned long addr = max(vma->vm_start,
				 ALIGN_DOWN(vmf->address, PMD_SIZE));
	unsigned long end = min(vma->vm_end - 1, vmf->address | ~PMD_MASK);
	unsigned long index = vmf->pgoff - ((vmf->address - addr) >> PAGE_SHIFT);
	vm_fault_t ret;

	ret = vmf_insert_pfn(vma, vmf->address,
			     kvmfr_dev_run(kdev, vmf->pgoff, 1).pfn);
	for (; ret == VM_FAULT_NOPAGE && addr < end; addr += PAGE_SIZE, index++)
		if (vmf_insert_pfn(vma, addr, kvmfr_dev_run(kdev, index, 1).pfn) !=
		    VM_FAULT_NOPAGE)
			break;
	return ret;
}

static vm_fault_t kvmfr_vm_fault(struct vm_fault *vmf)
{
	struct kvmfr_dev *kdev = vmf->vma->vm_private_data;
	vm_fault_t ret = VM_FAULT_SIGBUS;

	down_read(&kdev->lock);
	if (kdev->gone || vmf->pgoff >= kvmfr_dev_nr_pages(kdev))
		goto out;

	if (vmf->vma->vm_flags & VM_PFNMAP) {
		ret = kvmfr_vm_fault_pfn(vmf);
	} else {
		/* The core maps the whole huge page if this is part of one. */
		vmf->page = pfn_to_page(kvmfr_dev_run(kdev, vmf->pgoff, 1).pfn);
		get_page(vmf->page);
		ret = 0;
	}
out:
	up_read(&kdev->lock);
	return ret;
}

#ifdef KVMFR_HAS_VMF_INSERT_FOLIO_PMD
/* In the path of every fault of a huge page, so it just looks at the flag. */
static bool kvmfr_folio_poisoned(struct folio *folio)
{
	struct page *page = folio_page(folio, 0);
	struct page *end = page + folio_nr_pages(folio);

	for (; page < end; page++)
		if (PageHWPoison(page))
			return true;
	return false;
}

/* Maps all of a huge page, or if a part of it is poisoned, just the one page. */
static vm_fault_t kvmfr_vm_insert(struct vm_fault *vmf, struct page *page)
{
	bool write = vmf->flags & FAULT_FLAG_WRITE;
	struct folio *folio = page_folio(page);

	if (folio_nr_pages(folio) << PAGE_SHIFT != PMD_SIZE)
		return VM_FAULT_FALLBACK;
	if (PageHWPoison(page))
		return VM_FAULT_HWPOISON;
	/* A huge page that is mapped already stays; it just becomes writable. */
	if (pmd_none(*vmf->pmd) && kvmfr_folio_poisoned(folio))
		return vmf_insert_page_mkwrite(vmf, page, write);
	return vmf_insert_folio_pmd(vmf, folio, write);
}

/*
 * Called where no page table is yet. After kvmfr_vm_fault() the core would map
 * the huge page as well, but it allocates and clears a page table before it calls
 * that, and doesn't see poisoned pages: memory_failure() marks only the folios
 * that the core manages.
 */
static vm_fault_t kvmfr_vm_huge_fault(struct vm_fault *vmf, unsigned int order)
{
	struct vm_area_struct *vma = vmf->vma;
	struct kvmfr_dev *kdev = vma->vm_private_data;
	unsigned long start = ALIGN_DOWN(vmf->address, PMD_SIZE);
	vm_fault_t ret = VM_FAULT_FALLBACK;
	struct kvmfr_run run;

	/* mremap() may have moved a VM_PFNMAP mapping to where huge pages would fit. */
	if (vma->vm_flags & VM_PFNMAP)
		return ret;
	if (order != KVMFR_HUGE_ORDER || !kvmfr_vma_fits_huge(vma) ||
	    start < vma->vm_start || start + PMD_SIZE > vma->vm_end)
		return ret;

	down_read(&kdev->lock);
	if (!kdev->gone && vmf->pgoff < kvmfr_dev_nr_pages(kdev)) {
		run = kvmfr_dev_run(kdev, vmf->pgoff, 1);
		ret = kvmfr_vm_insert(vmf, pfn_to_page(run.pfn));
	}
	up_read(&kdev->lock);
	return ret;
}
#endif

/*
 * Maps nothing around a fault. It is there because the core calls the fault
 * handler without mmap_lock only where this operation exists.
 */
static vm_fault_t kvmfr_vm_map_pages(struct vm_fault *vmf, pgoff_t start,
				     pgoff_t end)
{
	return 0;
}

/* What a debugger reads and writes of a mapping whose pages can't be pinned. */
static int kvmfr_vm_access(struct vm_area_struct *vma, unsigned long addr,
			   void *data, int len, int write)
{
	struct kvmfr_dev *kdev = vma->vm_private_data;
	u64 pos = ((u64)vma->vm_pgoff << PAGE_SHIFT) + addr - vma->vm_start;
	size_t n = min_t(size_t, len, vma->vm_end - addr);
	void *memory;
	int ret;

	/* The core has not checked this. */
	if (write && !(vma->vm_flags & VM_WRITE))
		return -EACCES;
	ret = kvmfr_dev_use(kdev);
	if (ret)
		return ret;
	memory = kvmfr_dev_addr(kdev, pos, &n);
	if (IS_ERR(memory))
		ret = PTR_ERR(memory);
	else
		memcpy(write ? memory : data, write ? data : memory, n);
	kvmfr_dev_unuse(kdev);
	return ret ?: n;
}

static const struct vm_operations_struct kvmfr_vm_ops = {
	.fault = kvmfr_vm_fault,
#ifdef KVMFR_HAS_VMF_INSERT_FOLIO_PMD
	.huge_fault = kvmfr_vm_huge_fault,
#endif
	.map_pages = kvmfr_vm_map_pages,
	.access = kvmfr_vm_access,
};

/* Maps the struct pages of @run at @start; returns how many are done. */
static unsigned long kvmfr_vma_insert_pages(struct vm_area_struct *vma,
					    unsigned long start,
					    struct kvmfr_run run)
{
	struct page *pages[32];
	unsigned long n, left;

	for (n = 0; n < min(run.nr, ARRAY_SIZE(pages)); n++) {
		pages[n] = pfn_to_page(run.pfn + n);
		if (PageHWPoison(pages[n]))
			break;
	}
	if (!n)
		return 1;	/* poisoned: its fault ends in SIGBUS */

	left = n;
	return vm_insert_pages(vma, start, pages, &left) ? 0 : n;
}

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
	struct kvmfr_run run;
	unsigned long n = 1;

	for (; n && start < end; start += n << PAGE_SHIFT, index += n) {
		if (fatal_signal_pending(current))
			break;

		n = 0;
		down_read(&kdev->lock);
		if (!kdev->gone) {
			run = kvmfr_dev_run(kdev, index,
					    (end - start) >> PAGE_SHIFT);
			n = kvmfr_vma_insert_pages(vma, start, run);
		}
		up_read(&kdev->lock);
		cond_resched();
	}
}

/*
 * Huge pages are left to the faults. What can't be in one, since it isn't a
 * whole huge page or not at an address that suits it, is mapped now.
 *
 * vm_insert_pages() sets VM_MIXEDMAP, which is taken away again: it says that
 * some pages of the VMA have no reference count, and with it vma_is_special_huge()
 * would make the core forget its references on huge pages. Here all pages are
 * counted.
 */
static void kvmfr_vma_populate_small(struct vm_area_struct *vma)
{
	if (kvmfr_vma_fits_huge(vma)) {
		kvmfr_vma_populate(vma, vma->vm_start,
				   ALIGN(vma->vm_start, PMD_SIZE));
		kvmfr_vma_populate(vma, ALIGN_DOWN(vma->vm_end, PMD_SIZE),
				   vma->vm_end);
	} else {
		kvmfr_vma_populate(vma, vma->vm_start, vma->vm_end);
	}
	vm_flags_clear(vma, VM_MIXEDMAP);
}

/*
 * Pages are mapped by page frame number, without counting them, where there are
 * no struct pages, and where the folios of a BAR are huge but can only be mapped
 * page by page: their tails share a mapcount, see kvmfr_bar_make_pages(). Such a
 * mapping can't be pinned. (The edges of a mapping that has huge pages as well
 * are counted all the same.)
 */
static bool kvmfr_vma_wants_pfns(struct vm_area_struct *vma)
{
	struct kvmfr_dev *kdev = vma->vm_private_data;

	if (!kdev->kind->has_pages)
		return true;
	return !KVMFR_COUNT_TAILS && pgmap_vmemmap_nr(&kdev->pgmap) > 1 &&
	       !kvmfr_vma_fits_huge(vma);
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
	vma->vm_page_prot = kdev->kind->pgprot(vm_get_page_prot(vma->vm_flags));
	vma->vm_pgoff += first;
	vma->vm_private_data = kdev;
	vma->vm_ops = &kvmfr_vm_ops;

	if (kvmfr_vma_wants_pfns(vma))
		vm_flags_set(vma, VM_PFNMAP);
	else
		kvmfr_vma_populate_small(vma);
	return 0;
}

/* Says once for each device why a mapping of it has no huge page. */
static void kvmfr_vma_tell(struct vm_area_struct *vma)
{
	struct kvmfr_dev *kdev = vma->vm_private_data;
	unsigned long start = ALIGN(vma->vm_pgoff << PAGE_SHIFT, PMD_SIZE);
	unsigned long end = (vma->vm_pgoff + vma_pages(vma)) << PAGE_SHIFT;

	if (!kdev->huge_size || kvmfr_vma_fits_huge(vma) ||
	    start + PMD_SIZE > end || test_and_set_bit(0, &kdev->told))
		return;
	dev_info(&kdev->dev,
		 "%s (%d) maps it in small pages, at an address that isn't aligned to %lu MiB; QEMU aligns it with memory-backend-file,...,align=%luM\n",
		 current->comm, task_tgid_nr(current), PMD_SIZE / SZ_1M,
		 PMD_SIZE / SZ_1M);
}

/* ------------------------------- DMA-BUFs ------------------------------- */

static int kvmfr_dmabuf_attach(struct dma_buf *dmabuf,
			       struct dma_buf_attachment *attach)
{
	struct kvmfr_dmabuf *buf = dmabuf->priv;

	return kvmfr_dev_gone(buf->kdev) ? -ENODEV : 0;
}

/* The run at @index as far as one segment for @dev can hold it */
static struct kvmfr_run kvmfr_dmabuf_segment(struct kvmfr_dmabuf *buf,
					     struct device *dev,
					     unsigned long index)
{
	unsigned long boundary = dma_get_seg_boundary_nr_pages(dev, PAGE_SHIFT);
	unsigned long max = buf->first + buf->nr_pages - index;
	struct kvmfr_run run;

	/* A longer segment would not fit into a bounce buffer (swiotlb). */
	max = min_t(u64, max, dma_get_max_seg_size(dev) >> PAGE_SHIFT);
	max = min_t(u64, max, dma_max_mapping_size(dev) >> PAGE_SHIFT);
	run = kvmfr_dev_run(buf->kdev, index, max);
	run.nr = min(run.nr, boundary - (run.pfn & (boundary - 1)));
	return run;
}

static int kvmfr_dmabuf_fill_sgt(struct kvmfr_dmabuf *buf, struct sg_table *sgt,
				 struct device *dev)
{
	unsigned long end = buf->first + buf->nr_pages;
	unsigned int nr_entries = 0;
	struct scatterlist *sg;
	struct kvmfr_run run;
	unsigned long i;
	int ret;

	for (i = buf->first; i < end; i += run.nr, nr_entries++) {
		run = kvmfr_dmabuf_segment(buf, dev, i);
		cond_resched();
	}

	ret = sg_alloc_table(sgt, nr_entries, GFP_KERNEL);
	if (ret)
		return ret;

	for (i = buf->first, sg = sgt->sgl; i < end;
	     i += run.nr, sg = sg_next(sg)) {
		run = kvmfr_dmabuf_segment(buf, dev, i);
		sg_set_page(sg, pfn_to_page(run.pfn), run.nr << PAGE_SHIFT, 0);
		cond_resched();
	}
	return 0;
}

/*
 * Whether the DMA of a coherent device goes through bounce buffers (swiotlb). They
 * are all that needs syncing there. Not behind an IOMMU that translates: it
 * reaches all memory, and its DMA operations ask for syncing in any case.
 */
static bool kvmfr_mapping_bounced(struct kvmfr_mapping *map)
{
	struct iommu_domain *domain = iommu_get_domain_for_dev(map->dev);
	struct scatterlist *sg;
	int i;

	if (!dev_is_dma_coherent(map->dev) ||
	    (domain && domain->type & __IOMMU_DOMAIN_DMA_API))
		return false;
	for_each_sgtable_dma_sg(&map->sgt, sg, i)
		if (dma_need_sync(map->dev, sg_dma_address(sg)))
			return true;
	return false;
}

static struct sg_table *kvmfr_dmabuf_map(struct dma_buf_attachment *attach,
					 enum dma_data_direction dir)
{
	struct kvmfr_dmabuf *buf = attach->dmabuf->priv;
	struct kvmfr_mapping *map;
	int ret;

	if (dma_get_max_seg_size(attach->dev) < PAGE_SIZE)
		return ERR_PTR(-EINVAL);

	map = kzalloc_obj(*map);
	if (!map)
		return ERR_PTR(-ENOMEM);
	INIT_LIST_HEAD(&map->node);
	map->dev = attach->dev;
	map->dir = dir;

	ret = kvmfr_dev_use(buf->kdev);
	if (ret)
		goto err_free_map;
	ret = kvmfr_dmabuf_fill_sgt(buf, &map->sgt, map->dev);
	if (ret)
		goto err_unuse;

	/*
	 * DMA-BUFs can overlap, and DMA_API_DEBUG takes two overlapping mappings
	 * of a device for a mistake unless they leave syncing to somebody else.
	 */
	ret = dma_map_sgtable(map->dev, &map->sgt, dir, DMA_ATTR_SKIP_CPU_SYNC);
	if (ret)
		goto err_free_sgt;

	/*
	 * Syncing a bounce buffer would copy all of it over what the other
	 * machine has written to the memory meanwhile.
	 */
	if (kvmfr_mapping_bounced(map)) {
		ret = -EOPNOTSUPP;
		goto err_unmap_sgt;
	}

	if (!dev_is_dma_coherent(map->dev)) {
		dma_sync_sgtable_for_device(map->dev, &map->sgt, dir);
		mutex_lock(&buf->lock);
		list_add(&map->node, &buf->mappings);
		mutex_unlock(&buf->lock);
	}
	return &map->sgt;

err_unmap_sgt:
	dma_unmap_sgtable(map->dev, &map->sgt, dir, DMA_ATTR_SKIP_CPU_SYNC);
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

	if (!list_empty(&map->node)) {
		mutex_lock(&buf->lock);
		list_del(&map->node);
		mutex_unlock(&buf->lock);
		dma_sync_sgtable_for_cpu(map->dev, sgt, map->dir);
	}
	dma_unmap_sgtable(map->dev, sgt, map->dir, DMA_ATTR_SKIP_CPU_SYNC);
	sg_free_table(sgt);
	kvmfr_dev_unuse(buf->kdev);
	kfree(map);
}

/*
 * A mapping is synced in the direction it was mapped for, which a CPU access in
 * the other direction needs as well. The core waits for fences only after this
 * operation: what a device still writes must be in memory before the caches are
 * invalidated.
 */
static int kvmfr_dmabuf_begin_cpu_access(struct dma_buf *dmabuf,
					 enum dma_data_direction dir)
{
	struct kvmfr_dmabuf *buf = dmabuf->priv;
	struct kvmfr_mapping *map;
	long ret;

	if (kvmfr_dev_gone(buf->kdev))
		return -ENODEV;
	if (list_empty_careful(&buf->mappings))
		return 0;

	ret = dma_resv_wait_timeout(dmabuf->resv,
				    dma_resv_usage_rw(dir != DMA_FROM_DEVICE),
				    true, MAX_SCHEDULE_TIMEOUT);
	if (ret < 0)
		return ret;

	mutex_lock(&buf->lock);
	list_for_each_entry(map, &buf->mappings, node)
		dma_sync_sgtable_for_cpu(map->dev, &map->sgt, map->dir);
	mutex_unlock(&buf->lock);
	return 0;
}

/* Also while an unplug waits: a device that has it mapped may still read it. */
static int kvmfr_dmabuf_end_cpu_access(struct dma_buf *dmabuf,
				       enum dma_data_direction dir)
{
	struct kvmfr_dmabuf *buf = dmabuf->priv;
	struct kvmfr_mapping *map;

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
	unsigned long i, n;
	struct page **pages;
	struct kvmfr_run run;
	void *vaddr;
	int ret;

	ret = kvmfr_dev_use(buf->kdev);
	if (ret)
		return ret;

	pages = kvmalloc_array(buf->nr_pages, sizeof(*pages),
			       GFP_KERNEL | __GFP_NOWARN);
	if (!pages)
		goto err_unuse;
	for (i = 0; i < buf->nr_pages; i += run.nr, cond_resched()) {
		run = kvmfr_dev_run(buf->kdev, buf->first + i,
				    buf->nr_pages - i);
		for (n = 0; n < run.nr; n++)
			pages[i + n] = pfn_to_page(run.pfn + n);
	}

	vaddr = vmap(pages, buf->nr_pages, VM_MAP,
		     buf->kdev->kind->pgprot(PAGE_KERNEL));
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

	mutex_lock(&buf->kdev->dmabufs_lock);
	list_del(&buf->node);
	mutex_unlock(&buf->kdev->dmabufs_lock);
	atomic_dec(&buf->kdev->openers);
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
	 * There are no read-only DMA-BUFs: an importer writes through vmap()
	 * without asking, and the core warns in the log when vmap() fails.
	 */
	if ((file->f_mode & (FMODE_READ | FMODE_WRITE)) !=
	    (FMODE_READ | FMODE_WRITE))
		return -EACCES;
	if (!kdev->kind->has_pages)
		return -EOPNOTSUPP;

	buf = kzalloc_obj(*buf);
	if (!buf)
		return -ENOMEM;
	buf->kdev = kdev;
	get_device(&kdev->dev);
	atomic_inc(&kdev->openers);
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
		atomic_dec(&kdev->openers);
		put_device(&kdev->dev);
		kfree(buf);
		return PTR_ERR(dmabuf);
	}

	/*
	 * The DMA-BUF owns @buf now. Its mappings are in the device's address
	 * space, where one unmap_mapping_range() finds them. dma-buf.h would
	 * have kvmfr_dmabuf_mmap() set vma->vm_file to a file of the device
	 * instead, but remap_file_pages() maps any part of vm_file: whoever has
	 * just this DMA-BUF would reach the whole device.
	 */
	dmabuf->file->f_mapping = kdev->inode->i_mapping;

	buf->dmabuf = dmabuf;
	mutex_lock(&kdev->dmabufs_lock);
	list_add(&buf->node, &kdev->dmabufs);
	mutex_unlock(&kdev->dmabufs_lock);

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
	int ret = -ENODEV;

	down_read(&kdev->lock);
	if (!kdev->gone) {
		atomic_inc(&kdev->openers);
		ret = 0;
	}
	up_read(&kdev->lock);

	file->private_data = kdev;
	file->f_mapping = kdev->inode->i_mapping;
	return ret;
}

static int kvmfr_release(struct inode *inode, struct file *file)
{
	struct kvmfr_dev *kdev = file->private_data;

	if (kdev->bell)
		kvmfr_doorbell_drop(kdev->bell, file, 0,
				    kdev->bell->nr_vectors - 1);
	atomic_dec(&kdev->openers);
	return 0;
}

static loff_t kvmfr_llseek(struct file *file, loff_t offset, int whence)
{
	struct kvmfr_dev *kdev = file->private_data;

	if (kvmfr_dev_gone(kdev))
		return -ENODEV;
	return fixed_size_llseek(file, offset, whence, kdev->size);
}

/*
 * Copies between the device and @iter, from *@pos on, until the end of either.
 * The user's memory may be a mapping of this device, so no lock is held while it
 * is accessed; kvmfr_dev_use() keeps the memory for a chunk at a time, and an
 * unplug takes effect after it.
 */
static ssize_t kvmfr_copy(struct kvmfr_dev *kdev, loff_t *pos,
			  struct iov_iter *iter, bool write)
{
	size_t wanted, n;
	ssize_t done = 0;
	void *addr;
	int ret = 0;

	while (!ret && iov_iter_count(iter) && *pos < kdev->size) {
		if (fatal_signal_pending(current))
			ret = -EINTR;
		else
			ret = kvmfr_dev_use(kdev);
		if (ret)
			break;

		wanted = min_t(u64, min_t(size_t, iov_iter_count(iter), SZ_1M),
			       kdev->size - *pos);
		addr = kvmfr_dev_addr(kdev, *pos, &wanted);
		n = 0;
		if (IS_ERR(addr))
			ret = PTR_ERR(addr);
		else if (write)
			n = copy_from_iter(addr, wanted, iter);
		else
			n = copy_to_iter(addr, wanted, iter);
		kvmfr_dev_unuse(kdev);

		if (!ret && n < wanted)
			ret = -EFAULT;
		*pos += n;
		done += n;
		cond_resched();
	}
	return done ?: ret;
}

static ssize_t kvmfr_read_iter(struct kiocb *iocb, struct iov_iter *to)
{
	struct kvmfr_dev *kdev = iocb->ki_filp->private_data;

	if (kvmfr_dev_gone(kdev))
		return -ENODEV;
	return kvmfr_copy(kdev, &iocb->ki_pos, to, false);
}

static ssize_t kvmfr_write_iter(struct kiocb *iocb, struct iov_iter *from)
{
	struct kvmfr_dev *kdev = iocb->ki_filp->private_data;

	if (kvmfr_dev_gone(kdev))
		return -ENODEV;
	return kvmfr_copy(kdev, &iocb->ki_pos, from, true);
}

/* The memory is all there is: nothing is ever to be written back. */
static int kvmfr_fsync(struct file *file, loff_t start, loff_t end, int datasync)
{
	struct kvmfr_dev *kdev = file->private_data;

	return kvmfr_dev_gone(kdev) ? -ENODEV : 0;
}

static int kvmfr_mmap(struct file *file, struct vm_area_struct *vma)
{
	struct kvmfr_dev *kdev = file->private_data;
	int ret;

	ret = kvmfr_vma_init(vma, kdev, 0, kvmfr_dev_nr_pages(kdev));
	if (!ret)
		kvmfr_vma_tell(vma);
	return ret;
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
	case KVMFR_DOORBELL_INFO:
	case KVMFR_DOORBELL_RING:
	case KVMFR_DOORBELL_EVENTFD:
		return kvmfr_doorbell_ioctl(file, cmd, (void __user *)arg);

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
	.release = kvmfr_release,
	.llseek = kvmfr_llseek,
	.read_iter = kvmfr_read_iter,
	.write_iter = kvmfr_write_iter,
	.splice_read = copy_splice_read,
	.splice_write = iter_file_splice_write,
	.fsync = kvmfr_fsync,
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
	return sysfs_emit(buf, "%s\n", to_kvmfr_dev(dev)->kind->name);
}
static DEVICE_ATTR_RO(type);

/* Of the first page, for static memory: the allocator may have mixed nodes. */
static ssize_t node_show(struct device *dev, struct device_attribute *attr,
			 char *buf)
{
	struct kvmfr_dev *kdev = to_kvmfr_dev(dev);
	int node = dev->parent ? dev_to_node(dev->parent) :
		   page_to_nid(pfn_to_page(kvmfr_dev_run(kdev, 0, 1).pfn));

	return sysfs_emit(buf, "%d\n", node);
}
static DEVICE_ATTR_RO(node);

static ssize_t peer_id_show(struct device *dev, struct device_attribute *attr,
			    char *buf)
{
	return sysfs_emit(buf, "%u\n",
			  kvmfr_doorbell_id(to_kvmfr_dev(dev)->bell));
}
static DEVICE_ATTR_RO(peer_id);

static ssize_t vectors_show(struct device *dev, struct device_attribute *attr,
			    char *buf)
{
	return sysfs_emit(buf, "%u\n", to_kvmfr_dev(dev)->bell->nr_vectors);
}
static DEVICE_ATTR_RO(vectors);

static struct attribute *kvmfr_attrs[] = {
	&dev_attr_size.attr,
	&dev_attr_huge_bytes.attr,
	&dev_attr_type.attr,
	&dev_attr_node.attr,
	NULL,
};

static const struct attribute_group kvmfr_group = { .attrs = kvmfr_attrs };

static struct attribute *kvmfr_doorbell_attrs[] = {
	&dev_attr_peer_id.attr,
	&dev_attr_vectors.attr,
	NULL,
};

static umode_t kvmfr_doorbell_is_visible(struct kobject *kobj,
					 struct attribute *attr, int n)
{
	return to_kvmfr_dev(kobj_to_dev(kobj))->bell ? attr->mode : 0;
}

static const struct attribute_group kvmfr_doorbell_group = {
	.attrs = kvmfr_doorbell_attrs,
	.is_visible = kvmfr_doorbell_is_visible,
};

static const struct attribute_group *kvmfr_groups[] = {
	&kvmfr_group,
	&kvmfr_doorbell_group,
	NULL,
};

static struct class kvmfr_class = {
	.name = "kvmfr",
	.dev_groups = kvmfr_groups,
};

static void kvmfr_dev_release(struct device *dev)
{
	struct kvmfr_dev *kdev = to_kvmfr_dev(dev);

	iput(kdev->inode);
	mutex_destroy(&kdev->dmabufs_lock);
	kfree(kdev->bell);
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

	kdev->inode = inode;
	kdev->size = size;
	init_rwsem(&kdev->lock);
	xa_init(&kdev->blocks);
	mutex_init(&kdev->dmabufs_lock);
	INIT_LIST_HEAD(&kdev->dmabufs);
	device_initialize(&kdev->dev);
	kdev->dev.class = &kvmfr_class;
	kdev->dev.parent = parent;
	kdev->dev.release = kvmfr_dev_release;
	return kdev;
}

/*
 * The last step: afterwards user space can open the device. Even when this fails
 * somebody may have opened it, so the caller revokes it.
 */
static int kvmfr_dev_register(struct kvmfr_dev *kdev)
{
	int minor, ret;

	minor = ida_alloc_max(&kvmfr_minors, KVMFR_MAX_DEVS - 1, GFP_KERNEL);
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
		goto err_free_minor;
	return 0;

err_free_minor:
	ida_free(&kvmfr_minors, minor);
	return ret;
}

/* Gives back the memory, which nobody uses any more, and drops the reference. */
static void kvmfr_dev_free(struct kvmfr_dev *kdev)
{
	kdev->kind->release(kdev);
	put_device(&kdev->dev);
}

/* False: the machine goes down, and nothing of @kdev has been freed. */
static bool kvmfr_dev_revoke_and_free(struct kvmfr_dev *kdev)
{
	if (!kvmfr_dev_revoke(kdev))
		return false;
	kvmfr_dev_free(kdev);
	return true;
}

/* The same for a device that kvmfr_dev_register() has registered. */
static bool kvmfr_dev_unregister(struct kvmfr_dev *kdev)
{
	cdev_device_del(&kdev->cdev, &kdev->dev);
	ida_free(&kvmfr_minors, MINOR(kdev->dev.devt));
	return kvmfr_dev_revoke_and_free(kdev);
}

/* --------------------------- static devices ----------------------------- */

enum kvmfr_static_phase {
	KVMFR_LOADING,		/* the parameter is for kvmfr_init() to read */
	KVMFR_LIVE,		/* it makes and removes devices */
	KVMFR_LEAVING,		/* nothing may be made any more */
};

/* The devices in the order of the parameter. The lock protects all of this. */
static DEFINE_MUTEX(kvmfr_static_lock);
static enum kvmfr_static_phase kvmfr_static_phase;
static char *kvmfr_static_param;
static struct kvmfr_dev *kvmfr_static[KVMFR_MAX_STATIC];
static unsigned int kvmfr_nr_static;

/*
 * The devices that there shall be: @kdev[i] has @mb[i] MiB. Where @kept[i] is set
 * it exists already and stays; else it is new.
 */
struct kvmfr_plan {
	int n;
	unsigned long mb[KVMFR_MAX_STATIC];
	struct kvmfr_dev *kdev[KVMFR_MAX_STATIC];
	bool kept[KVMFR_MAX_STATIC];
};

/* Parses one size of the list, and says in the log what is wrong with it. */
static int kvmfr_static_parse_one(const char *value, unsigned long *mb)
{
	unsigned long all = totalram_pages() >> (20 - PAGE_SHIFT);
	int ret = kstrtoul(value, 0, mb);

	if (ret == -ERANGE) {
		pr_err("static_size_mb: no memory for \"%s\" MiB; the machine has %lu MiB\n",
		       value, all);
		return -ENOMEM;
	}
	if (ret || !*mb) {
		pr_err("static_size_mb: \"%s\" is not a size; expected whole MiB from 1 to %lu, several separated by commas\n",
		       value, all);
		return -EINVAL;
	}
	return 0;
}

static int kvmfr_static_parse(struct kvmfr_plan *plan, char *list)
{
	char *value;
	int ret;

	while ((value = strsep(&list, ","))) {
		if (plan->n == KVMFR_MAX_STATIC) {
			pr_err("static_size_mb: more than %d sizes; at most %d devices are possible\n",
			       KVMFR_MAX_STATIC, KVMFR_MAX_STATIC);
			return -EINVAL;
		}
		ret = kvmfr_static_parse_one(value, &plan->mb[plan->n]);
		if (ret)
			return ret;
		plan->n++;
	}
	return 0;
}

static bool kvmfr_static_stays(struct kvmfr_plan *plan, struct kvmfr_dev *kdev)
{
	int j;

	for (j = 0; j < plan->n; j++)
		if (plan->kept[j] && plan->kdev[j] == kdev)
			return true;
	return false;
}

/* Keeps @kdev if a size of the list is not taken by another device yet. */
static void kvmfr_static_keep(struct kvmfr_plan *plan, struct kvmfr_dev *kdev)
{
	int j;

	for (j = 0; j < plan->n; j++)
		if (!plan->kept[j] && kdev->size >> 20 == plan->mb[j]) {
			plan->kdev[j] = kdev;
			plan->kept[j] = true;
			return;
		}
}

/*
 * Finds the devices that stay: of each size as many as the list has, wherever
 * they are in it, and those that are in use before others.
 */
static void kvmfr_static_match(struct kvmfr_plan *plan)
{
	unsigned int i;

	for (i = 0; i < kvmfr_nr_static; i++)
		if (atomic_read(&kvmfr_static[i]->openers))
			kvmfr_static_keep(plan, kvmfr_static[i]);
	for (i = 0; i < kvmfr_nr_static; i++)
		if (!kvmfr_static_stays(plan, kvmfr_static[i]))
			kvmfr_static_keep(plan, kvmfr_static[i]);
}

static struct kvmfr_dev *kvmfr_static_create(unsigned long mb)
{
	struct kvmfr_dev *kdev;
	int ret;

	kdev = kvmfr_dev_alloc(NULL, (u64)mb * SZ_1M);
	if (IS_ERR(kdev))
		return kdev;

	ret = kvmfr_static_alloc(kdev);
	if (ret) {
		if (ret == -ENOMEM)
			pr_err("static_size_mb: no memory for a device of %lu MiB; free some or ask for less\n",
			       mb);
		kvmfr_dev_free(kdev);
		return ERR_PTR(ret);
	}
	return kdev;
}

/* Frees what kvmfr_static_create_new() has made. */
static void kvmfr_static_free_new(struct kvmfr_plan *plan)
{
	int j;

	for (j = 0; j < plan->n; j++)
		if (!plan->kept[j] && plan->kdev[j])
			kvmfr_dev_free(plan->kdev[j]);
}

/* Checks all sizes before it allocates memory for the first. */
static int kvmfr_static_create_new(struct kvmfr_plan *plan)
{
	unsigned long left = si_mem_available() >> (20 - PAGE_SHIFT);
	struct kvmfr_dev *kdev;
	int j;

	for (j = 0; j < plan->n; j++) {
		if (plan->kept[j])
			continue;
		if (plan->mb[j] > left) {
			pr_err("static_size_mb: no memory for \"%lu\" MiB; %lu MiB are available for it\n",
			       plan->mb[j], left);
			return -ENOMEM;
		}
		left -= plan->mb[j];
	}

	for (j = 0; j < plan->n; j++) {
		if (plan->kept[j])
			continue;
		kdev = kvmfr_static_create(plan->mb[j]);
		if (IS_ERR(kdev)) {
			kvmfr_static_free_new(plan);
			return PTR_ERR(kdev);
		}
		plan->kdev[j] = kdev;
	}
	return 0;
}

/* Keeps new users out of a device. False if it has users already. */
static bool kvmfr_static_close(struct kvmfr_dev *kdev)
{
	down_write(&kdev->lock);
	WRITE_ONCE(kdev->gone, !atomic_read(&kdev->openers));
	up_write(&kdev->lock);
	return kdev->gone;
}

static void kvmfr_static_reopen(struct kvmfr_dev *kdev)
{
	down_write(&kdev->lock);
	WRITE_ONCE(kdev->gone, false);
	up_write(&kdev->lock);
}

/* Closes all devices that don't stay, or none of them. */
static int kvmfr_static_close_old(struct kvmfr_plan *plan)
{
	unsigned int i;

	for (i = 0; i < kvmfr_nr_static; i++) {
		if (kvmfr_static_stays(plan, kvmfr_static[i]) ||
		    kvmfr_static_close(kvmfr_static[i]))
			continue;
		dev_err(&kvmfr_static[i]->dev,
			"static_size_mb: it is open, mapped or a DMA-BUF, so it can't be removed; nothing was changed\n");
		while (i--)
			if (!kvmfr_static_stays(plan, kvmfr_static[i]))
				kvmfr_static_reopen(kvmfr_static[i]);
		return -EBUSY;
	}
	return 0;
}

/* New devices get the lowest free numbers. Those that can't be registered go. */
static int kvmfr_static_replace(struct kvmfr_plan *plan)
{
	struct kvmfr_dev *kdev;
	unsigned int i;
	int j, ret = 0;

	for (i = 0; i < kvmfr_nr_static; i++)
		if (!kvmfr_static_stays(plan, kvmfr_static[i]))
			kvmfr_dev_unregister(kvmfr_static[i]);

	kvmfr_nr_static = 0;
	for (j = 0; j < plan->n; j++) {
		kdev = plan->kdev[j];
		if (!plan->kept[j]) {
			if (!ret)
				ret = kvmfr_dev_register(kdev);
			if (ret) {
				kvmfr_dev_revoke_and_free(kdev);
				continue;
			}
			dev_info(&kdev->dev, "%llu MiB, %llu MiB of it in huge pages\n",
				 kdev->size / SZ_1M, kdev->huge_size / SZ_1M);
		}
		kvmfr_static[kvmfr_nr_static++] = kdev;
	}
	if (ret)
		pr_err("the devices could not be registered: %d\n", ret);
	return ret;
}

/*
 * Makes and removes devices so that they are what @list says. When it fails
 * nothing has changed, except where kvmfr_static_replace() could not register one.
 */
static int kvmfr_static_set(char *list)
{
	struct kvmfr_plan *plan;
	int ret;

	plan = kzalloc_obj(*plan);
	if (!plan)
		return -ENOMEM;

	ret = kvmfr_static_parse(plan, list);
	if (ret)
		goto out;
	kvmfr_static_match(plan);
	ret = kvmfr_static_create_new(plan);
	if (ret)
		goto out;
	ret = kvmfr_static_close_old(plan);
	if (ret)
		kvmfr_static_free_new(plan);
	else
		ret = kvmfr_static_replace(plan);
out:
	kfree(plan);
	return ret;
}

/*
 * An empty line removes all devices. On the module's command line an empty list
 * is refused.
 */
static int kvmfr_static_param_set(const char *value,
				  const struct kernel_param *param)
{
	char *list = kstrdup(value, GFP_KERNEL);
	int ret = -ENODEV;

	if (!list)
		return -ENOMEM;
	list[strcspn(list, "\n")] = '\0';

	mutex_lock(&kvmfr_static_lock);
	if (kvmfr_static_phase == KVMFR_LOADING) {
		swap(list, kvmfr_static_param);
		ret = 0;
	} else if (kvmfr_static_phase == KVMFR_LIVE) {
		ret = kvmfr_static_set(*list ? list : NULL);
	}
	mutex_unlock(&kvmfr_static_lock);
	kfree(list);
	return ret;
}

static int kvmfr_static_param_get(char *buf, const struct kernel_param *param)
{
	unsigned int i;
	int n = 0;

	mutex_lock(&kvmfr_static_lock);
	for (i = 0; i < kvmfr_nr_static; i++)
		n += sysfs_emit_at(buf, n, "%s%llu", i ? "," : "",
				   kvmfr_static[i]->size / SZ_1M);
	mutex_unlock(&kvmfr_static_lock);
	return n + sysfs_emit_at(buf, n, "\n");
}

/* When the module goes, also if it could not be loaded */
static void kvmfr_static_param_free(void *arg)
{
	kfree(kvmfr_static_param);
}

static const struct kernel_param_ops kvmfr_static_param_ops = {
	.set = kvmfr_static_param_set,
	.get = kvmfr_static_param_get,
	.free = kvmfr_static_param_free,
};

module_param_cb(static_size_mb, &kvmfr_static_param_ops, NULL, 0644);
__MODULE_PARM_TYPE(static_size_mb, "charp");
MODULE_PARM_DESC(static_size_mb,
		 "Sizes in MiB of the static devices, separated by commas");

static int __init kvmfr_static_begin(void)
{
	int ret;

	mutex_lock(&kvmfr_static_lock);
	ret = kvmfr_static_set(kvmfr_static_param);
	kvmfr_static_phase = ret ? KVMFR_LEAVING : KVMFR_LIVE;
	mutex_unlock(&kvmfr_static_lock);
	return ret;
}

static void kvmfr_static_end(void)
{
	mutex_lock(&kvmfr_static_lock);
	kvmfr_static_phase = KVMFR_LEAVING;
	while (kvmfr_nr_static)
		kvmfr_dev_unregister(kvmfr_static[--kvmfr_nr_static]);
	mutex_unlock(&kvmfr_static_lock);
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
	if (ret) {
		put_device(&kdev->dev);
		goto err_release_region;
	}
	kvmfr_doorbell_probe(kdev, pdev);

	ret = kvmfr_dev_register(kdev);
	if (ret) {
		if (!kvmfr_dev_revoke_and_free(kdev))
			return ret;
		goto err_release_region;
	}

	pci_set_drvdata(pdev, kdev);
	dev_info(&kdev->dev, "%llu KiB of IVSHMEM memory, PCI device %s\n",
		 kdev->size >> 10, pci_name(pdev));
	return 0;

err_release_region:
	pci_release_region(pdev, KVMFR_BAR);
err_disable:
	pci_disable_device(pdev);
	return ret;
}

static void kvmfr_pci_remove(struct pci_dev *pdev)
{
	struct kvmfr_dev *kdev = pci_get_drvdata(pdev);

	if (!kvmfr_dev_unregister(kdev))
		return;
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
 * Somebody may have opened a device before init failed. Every call answers ENODEV
 * by now, but the core frees a module whose init fails without looking at its
 * reference count. That is also why a signal can't end this wait.
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
	ret = kvmfr_static_begin();
	if (ret)
		goto err_static;
	ret = pci_register_driver(&kvmfr_pci_driver);
	if (ret)
		goto err_static;
	return 0;

err_static:
	kvmfr_static_end();
	kvmfr_wait_for_users();
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
	/* remove() may have left a device as it was; this module has to stay. */
	while (kvmfr_going_down())
		schedule_timeout_idle(HZ);
	kvmfr_static_end();
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
