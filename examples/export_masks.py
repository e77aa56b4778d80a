"""Masks for other tools: a supervision annotator draws them, and a COCO file holds them for a training.

pip install supervision
python examples/export_masks.py clip.mp4 640,60 out/export
"""

import json
import sys
from pathlib import Path

import cv2
import numpy as np
import supervision as sv
from pycocotools import mask as coco

import rtseg

video, click, out = sys.argv[1], [float(part) for part in sys.argv[2].split(",")], Path(sys.argv[3])
out.mkdir(parents=True, exist_ok=True)
tracker = rtseg.Tracker(rtseg.open_engine("engines/nano-cpu.toml"))
images, annotations = [], []
for frame in rtseg.open_source(video):
    if frame.seq == 0:
        tracker.prompt(1, points=[(*click, 1)], label="grasper")
    masks = tracker.step(frame)
    ids = [i for i in masks.ids if masks.mask(i).any()]
    masks_bhw = np.array([masks.mask(i) for i in ids], bool).reshape(-1, frame.height, frame.width)
    scores_b, ids_b = np.array([masks.score(i) for i in ids]), np.array(ids, int)
    seen = sv.Detections(sv.mask_to_xyxy(masks_bhw), masks_bhw, scores_b, class_id=ids_b, tracker_id=ids_b)
    drawn_hwc = sv.MaskAnnotator().annotate(frame.image_hwc[..., ::-1].copy(), seen)  # BGR
    images.append({"id": frame.seq, "file_name": f"{frame.seq:05d}.jpg", "width": frame.width, "height": frame.height})
    cv2.imwrite(str(out / images[-1]["file_name"]), drawn_hwc)
    for i, mask_hw in zip(ids, masks_bhw, strict=True):
        rle = coco.encode(np.asfortranarray(mask_hw, np.uint8))
        about = {"id": len(annotations) + 1, "image_id": frame.seq, "category_id": i, "iscrowd": 0}
        about |= {"area": int(coco.area(rle)), "bbox": coco.toBbox(rle).tolist()}
        annotations.append(about | {"segmentation": {**rle, "counts": rle["counts"].decode()}})
categories = [{"id": i, "name": masks.label(i)} for i in masks.ids]
(out / "coco.json").write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
