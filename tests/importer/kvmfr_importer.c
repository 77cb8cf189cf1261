// SPDX-License-Identifier: GPL-2.0
/*
 * A DMA-BUF importer and page pinner that does what a test tells it: see kvmfr_importer.h. Only
 * for tests.
 */
#include <linux/dma-buf.h>
#include <linux/dma-direct.h>
#include <linux/dma-mapping.h>
#include <linux/dma-resv.h>
#include <linux/fs.h>
#include <linux/miscdevice.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/platform_device.h>
#include <linux/scatterlist.h>
#include <linux/slab.h>
#include <linux/uaccess.h>

#include "kvmfr_importer.h"

#ifdef HAVE_DMA_BUF_MAP
#define iosys_map dma_buf_map
#endif

/* One open file */
struct importer {
	struct mutex lock;	/* everything; a DMA-BUF's own locks are taken inside it */
	struct platform_device *pdev;
	struct dma_buf_attachment *attach;
	bool revocable;
	struct sg_table *sgt;	/* changes with the reservation lock held if it is revocable */
	enum dma_data_direction direction;
	struct scatterlist *at;		/* IO goes on from here: the segment and where it begins */
	u64 at_offset;
	u64 total;
#ifndef HAVE_VMAP_POINTER
	struct iosys_map map;
#endif
	void *vaddr;
	struct page **pages;
	unsigned long npages;
};

#ifdef HAVE_REVOCABLE
/* The exporter wants its memory back, and holds the reservation lock. */
static void importer_invalidate(struct dma_buf_attachment *attach)
{
	struct importer *imp = attach->importer_priv;

	if (imp->sgt)
		dma_buf_unmap_attachment(attach, imp->sgt, imp->direction);
	imp->sgt = NULL;
}

static const struct dma_buf_attach_ops importer_revocable_ops = {
	.invalidate_mappings = importer_invalidate,
};

static struct dma_buf_attachment *attach_revocable(struct importer *imp, struct dma_buf *dmabuf)
{
	return dma_buf_dynamic_attach(dmabuf, &imp->pdev->dev, &importer_revocable_ops, imp);
}

static int unmap_revocable(struct importer *imp)
{
	struct dma_buf *dmabuf = imp->attach->dmabuf;
	int ret;

	dma_resv_lock(dmabuf->resv, NULL);
	ret = imp->sgt ? 0 : -ENOENT;
	importer_invalidate(imp->attach);
	dma_resv_unlock(dmabuf->resv);
	return ret;
}
#else
static struct dma_buf_attachment *attach_revocable(struct importer *imp, struct dma_buf *dmabuf)
{
	return ERR_PTR(-EOPNOTSUPP);
}

static int unmap_revocable(struct importer *imp)
{
	return -EOPNOTSUPP;
}
#endif

#ifdef HAVE_DMA_BUF_UNLOCKED
#define dma_buf_map_attachment		dma_buf_map_attachment_unlocked
#define dma_buf_unmap_attachment	dma_buf_unmap_attachment_unlocked
#define dma_buf_vmap			dma_buf_vmap_unlocked
#define dma_buf_vunmap			dma_buf_vunmap_unlocked
#endif

static int importer_attach(struct importer *imp, unsigned long arg)
{
	struct kvmfr_importer_attach req;
	struct dma_buf_attachment *attach;
	struct dma_buf *dmabuf;

	if (imp->attach)
		return -EBUSY;
	if (copy_from_user(&req, (void __user *)arg, sizeof(req)))
		return -EFAULT;
	if (req.max_segment)
		dma_set_max_seg_size(&imp->pdev->dev, req.max_segment);
	if (req.boundary)
		dma_set_seg_boundary(&imp->pdev->dev, req.boundary);
	dmabuf = dma_buf_get(req.fd);
	if (IS_ERR(dmabuf))
		return PTR_ERR(dmabuf);
	attach = req.revocable ? attach_revocable(imp, dmabuf) :
				 dma_buf_attach(dmabuf, &imp->pdev->dev);
	if (IS_ERR(attach)) {
		dma_buf_put(dmabuf);
		return PTR_ERR(attach);
	}
	imp->attach = attach;
	imp->revocable = req.revocable;
	return 0;
}

static int importer_unmap(struct importer *imp)
{
	if (imp->attach && imp->revocable)
		return unmap_revocable(imp);
	if (!imp->sgt)
		return -ENOENT;
	dma_buf_unmap_attachment(imp->attach, imp->sgt, imp->direction);
	imp->sgt = NULL;
	return 0;
}

static int importer_map(struct importer *imp, unsigned long arg)
{
	struct device *dev = &imp->pdev->dev;
	u64 boundary = dma_get_seg_boundary(dev);
	struct kvmfr_importer_map req;
	struct scatterlist *sg;
	struct sg_table *sgt;
	u64 start = 0, end = 0;
	int i;

	if (!imp->attach)
		return -ENOENT;
	if (imp->sgt)
		return -EBUSY;
	if (copy_from_user(&req, (void __user *)arg, sizeof(req)))
		return -EFAULT;
	if (req.direction > DMA_FROM_DEVICE)
		return -EINVAL;
	sgt = dma_buf_map_attachment(imp->attach, req.direction);
	if (IS_ERR(sgt))
		return PTR_ERR(sgt);
	imp->sgt = sgt;
	imp->direction = req.direction;
	imp->at = sgt->sgl;
	imp->at_offset = 0;

	req.nents = sgt->nents;
	req.orig_nents = sgt->orig_nents;
	req.unmerged = 0;
	req.crossing = 0;
	req.largest = 0;
	req.total = 0;
	for_each_sgtable_dma_sg(sgt, sg, i) {
		u64 address = sg_dma_address(sg), length = sg_dma_len(sg);

		/*
		 * A segment may not cross the device's boundary (4 GiB by default), so two are
		 * right there.
		 */
		if (i && address == end && address + length - start <= dma_get_max_seg_size(dev) &&
		    !((start ^ (address + length - 1)) & ~boundary))
			req.unmerged++;
		if ((address ^ (address + length - 1)) & ~boundary)
			req.crossing++;
		start = address;
		end = address + length;
		req.largest = max(req.largest, length);
		req.total += length;
	}
	imp->total = req.total;
	if (copy_to_user((void __user *)arg, &req, sizeof(req))) {
		importer_unmap(imp);
		return -EFAULT;
	}
	return 0;
}

static int importer_vmap(struct importer *imp)
{
	if (!imp->attach)
		return -ENOENT;
	if (imp->vaddr)
		return -EBUSY;
#ifdef HAVE_VMAP_POINTER
	imp->vaddr = dma_buf_vmap(imp->attach->dmabuf);
	if (IS_ERR(imp->vaddr)) {
		int err = PTR_ERR(imp->vaddr);

		imp->vaddr = NULL;
		return err;
	}
	return imp->vaddr ? 0 : -ENOMEM;
#else
	{
		int err = dma_buf_vmap(imp->attach->dmabuf, &imp->map);

		if (!err)
			imp->vaddr = imp->map.vaddr;
		return err;
	}
#endif
}

static int importer_vunmap(struct importer *imp)
{
	if (!imp->vaddr)
		return -ENOENT;
#ifdef HAVE_VMAP_POINTER
	dma_buf_vunmap(imp->attach->dmabuf, imp->vaddr);
#else
	dma_buf_vunmap(imp->attach->dmabuf, &imp->map);
#endif
	imp->vaddr = NULL;
	return 0;
}

static int importer_detach(struct importer *imp)
{
	struct dma_buf *dmabuf;

	if (!imp->attach)
		return -ENOENT;
	if (imp->sgt || imp->vaddr)
		return -EBUSY;
	dmabuf = imp->attach->dmabuf;
	dma_buf_detach(dmabuf, imp->attach);
	dma_buf_put(dmabuf);
	imp->attach = NULL;
	return 0;
}

static int importer_unpin(struct importer *imp)
{
	if (!imp->pages)
		return -ENOENT;
	unpin_user_pages(imp->pages, imp->npages);
	kvfree(imp->pages);
	imp->pages = NULL;
	return 0;
}

static int importer_pin(struct importer *imp, unsigned long arg)
{
	struct kvmfr_importer_pin req;
	unsigned long done = 0;

	if (imp->pages)
		return -EBUSY;
	if (copy_from_user(&req, (void __user *)arg, sizeof(req)))
		return -EFAULT;
	if (!req.pages || req.pages > INT_MAX)
		return -EINVAL;
	imp->pages = kvmalloc_array(req.pages, sizeof(*imp->pages), GFP_KERNEL);
	if (!imp->pages)
		return -ENOMEM;
	while (done < req.pages) {
		int got = pin_user_pages_fast(req.address + done * PAGE_SIZE, req.pages - done,
					      FOLL_WRITE | FOLL_LONGTERM, imp->pages + done);

		if (got <= 0) {
			imp->npages = done;
			importer_unpin(imp);
			return got ? got : -EFAULT;
		}
		done += got;
	}
	imp->npages = done;
	return 0;
}

/* The kernel address of the byte at this offset; good until the end of its page. */
static void *importer_byte(struct importer *imp, u32 via, u64 offset)
{
	if (via == KVMFR_IMPORTER_VIA_VMAP && imp->vaddr && offset < imp->attach->dmabuf->size)
		return imp->vaddr + offset;
	if (via == KVMFR_IMPORTER_VIA_PIN && imp->pages && offset >> PAGE_SHIFT < imp->npages)
		return page_address(imp->pages[offset >> PAGE_SHIFT]) + offset_in_page(offset);
	if (via != KVMFR_IMPORTER_VIA_SG || !imp->sgt || offset >= imp->total)
		return NULL;
	/*
	 * Like a device: by DMA address. CONFIG_DMABUF_DEBUG hides the pages from importers
	 * anyhow. The virtual machines of the tests have no IOMMU, so this is the inverse of
	 * dma_map_sgtable().
	 */
	if (offset < imp->at_offset) {
		imp->at = imp->sgt->sgl;
		imp->at_offset = 0;
	}
	while (offset - imp->at_offset >= sg_dma_len(imp->at)) {
		imp->at_offset += sg_dma_len(imp->at);
		imp->at = sg_next(imp->at);
	}
	return phys_to_virt(dma_to_phys(&imp->pdev->dev,
					sg_dma_address(imp->at) + offset - imp->at_offset));
}

static int importer_io(struct importer *imp, unsigned long arg)
{
	struct kvmfr_importer_io req;
	void *bounce;
	int err = 0;

	if (copy_from_user(&req, (void __user *)arg, sizeof(req)))
		return -EFAULT;
	bounce = kmalloc(PAGE_SIZE, GFP_KERNEL);
	if (!bounce)
		return -ENOMEM;
	while (req.length) {
		u64 size = min_t(u64, req.length, PAGE_SIZE - offset_in_page(req.offset));
		void *byte = importer_byte(imp, req.via, req.offset);

		err = byte ? 0 : -ERANGE;
		if (err)
			break;
		if (!req.write)
			memcpy(bounce, byte, size);
		err = -EFAULT;
		if (req.write ? copy_from_user(bounce, u64_to_user_ptr(req.buffer), size) :
				copy_to_user(u64_to_user_ptr(req.buffer), bounce, size))
			break;
		if (req.write)
			memcpy(byte, bounce, size);
		err = 0;
		req.offset += size;
		req.buffer += size;
		req.length -= size;
		cond_resched();
	}
	kfree(bounce);
	return err;
}

static long importer_ioctl(struct file *file, unsigned int cmd, unsigned long arg)
{
	struct importer *imp = file->private_data;
	int ret;

	ret = mutex_lock_killable(&imp->lock);
	if (ret)
		return ret;
	switch (cmd) {
	case KVMFR_IMPORTER_ATTACH:
		ret = importer_attach(imp, arg);
		break;
	case KVMFR_IMPORTER_DETACH:
		ret = importer_detach(imp);
		break;
	case KVMFR_IMPORTER_MAP:
		ret = importer_map(imp, arg);
		break;
	case KVMFR_IMPORTER_UNMAP:
		ret = importer_unmap(imp);
		break;
	case KVMFR_IMPORTER_VMAP:
		ret = importer_vmap(imp);
		break;
	case KVMFR_IMPORTER_VUNMAP:
		ret = importer_vunmap(imp);
		break;
	case KVMFR_IMPORTER_BEGIN_CPU:
		ret = imp->attach ? dma_buf_begin_cpu_access(imp->attach->dmabuf, arg) : -ENOENT;
		break;
	case KVMFR_IMPORTER_END_CPU:
		ret = imp->attach ? dma_buf_end_cpu_access(imp->attach->dmabuf, arg) : -ENOENT;
		break;
	case KVMFR_IMPORTER_IO:
		ret = importer_io(imp, arg);
		break;
	case KVMFR_IMPORTER_PIN:
		ret = importer_pin(imp, arg);
		break;
	case KVMFR_IMPORTER_UNPIN:
		ret = importer_unpin(imp);
		break;
	default:
		ret = -ENOTTY;
	}
	mutex_unlock(&imp->lock);
	return ret;
}

/* Like a GPU driver that lets its own user map what it has imported */
static int importer_mmap(struct file *file, struct vm_area_struct *vma)
{
	struct importer *imp = file->private_data;

	/*
	 * Not under the lock: mmap_lock is held, and IO takes it inside the lock. The test
	 * doesn't detach meanwhile.
	 */
	return imp->attach ? dma_buf_mmap(imp->attach->dmabuf, vma, vma->vm_pgoff) : -ENOENT;
}

static int importer_open(struct inode *inode, struct file *file)
{
	struct importer *imp;
	int err;

	imp = kzalloc(sizeof(*imp), GFP_KERNEL);
	if (!imp)
		return -ENOMEM;
	mutex_init(&imp->lock);
	imp->pdev = platform_device_register_simple("kvmfr_importer", PLATFORM_DEVID_AUTO, NULL, 0);
	if (IS_ERR(imp->pdev)) {
		err = PTR_ERR(imp->pdev);
		goto err_free;
	}
	err = dma_set_mask_and_coherent(&imp->pdev->dev, DMA_BIT_MASK(64));
	if (err)
		goto err_unregister;
	file->private_data = imp;
	return 0;

err_unregister:
	platform_device_unregister(imp->pdev);
err_free:
	kfree(imp);
	return err;
}

static int importer_release(struct inode *inode, struct file *file)
{
	struct importer *imp = file->private_data;

	importer_unpin(imp);
	importer_vunmap(imp);
	importer_unmap(imp);
	importer_detach(imp);
	platform_device_unregister(imp->pdev);
	kfree(imp);
	return 0;
}

static const struct file_operations importer_fops = {
	.owner = THIS_MODULE,
	.open = importer_open,
	.release = importer_release,
	.unlocked_ioctl = importer_ioctl,
	.mmap = importer_mmap,
};

static struct miscdevice importer_misc = {
	.minor = MISC_DYNAMIC_MINOR,
	.name = "kvmfr_importer",
	.mode = 0600,
	.fops = &importer_fops,
};
module_misc_device(importer_misc);

MODULE_DESCRIPTION("DMA-BUF importer for the tests of kvmfr");
MODULE_LICENSE("GPL");
MODULE_INFO(import_ns, "DMA_BUF");
