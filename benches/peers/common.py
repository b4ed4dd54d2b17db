"""What both peers share: the usual Python loop around a detector. YOLOX-nano 416, COCO's 80 classes.

A thread a camera reads with OpenCV's VideoCapture, unpaced and looped, letterboxes (OpenCV lets go of the interpreter
lock there, which favours the peer) and hands over by a queue of one. Nothing is dropped: a full queue blocks its camera.
"""

import argparse
import json
import os
import queue
import threading
import time

import cv2
import numpy as np

SIZE = 416
PAD = 114
CONFIDENCE = 0.3
OVERLAP = 0.45
WARM_UP_S = 2.0


def arguments(description):
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--clip", required=True)
    parser.add_argument("--model", required=True, help="yolox_nano.onnx")
    parser.add_argument("--streams", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--precision", choices=("f32", "bf16"), default="f32")
    return parser


def grid():
    cells, strides = [], []
    for stride in (8, 16, 32):
        side = SIZE // stride
        y, x = np.meshgrid(np.arange(side), np.arange(side), indexing="ij")
        cells.append(np.stack([x, y], -1).reshape(-1, 2))
        strides.append(np.full((side * side, 1), stride))
    return np.concatenate(cells).astype(np.float32), np.concatenate(strides).astype(np.float32)


CELLS, STRIDES = grid()


def letterbox(picture):
    """The input tensor (BGR, 0..255, picture top left) and its scale."""
    height, width = picture.shape[:2]
    scale = min(SIZE / width, SIZE / height)
    fitted = cv2.resize(picture, (round(width * scale), round(height * scale)))
    padded = np.full((SIZE, SIZE, 3), PAD, np.uint8)
    padded[: fitted.shape[0], : fitted.shape[1]] = fitted
    return np.ascontiguousarray(padded.transpose(2, 0, 1)[None], dtype=np.float32), scale


def detections(output, scale):
    """Boxes (x, y, width, height in pixels of the source), scores and classes after class-aware NMS."""
    likely = output[:, 4] >= CONFIDENCE  # the objectness bounds the score
    output, cells, strides = output[likely], CELLS[likely], STRIDES[likely]
    scores = output[:, 4:5] * output[:, 5:]
    classes = scores.argmax(1)
    scores = scores[np.arange(len(scores)), classes]
    sure = scores >= CONFIDENCE
    output, cells, strides, scores, classes = (a[sure] for a in (output, cells, strides, scores, classes))
    if not len(scores):
        return []
    size = np.exp(output[:, 2:4]) * strides
    boxes = np.concatenate([(output[:, :2] + cells) * strides - size / 2, size], 1) / scale
    kept = cv2.dnn.NMSBoxesBatched(boxes.tolist(), scores.tolist(), classes.tolist(), CONFIDENCE, OVERLAP)
    return [(boxes[i], scores[i], classes[i]) for i in kept]


class Cameras:
    """A thread and a queue of one a camera; `next` takes them in turn."""

    def __init__(self, clip, streams):
        self.queues = [queue.Queue(1) for _ in range(streams)]
        self.turn = 0
        for own in self.queues:
            threading.Thread(target=self._read, args=(clip, own), daemon=True).start()

    @staticmethod
    def _read(clip, own):
        while True:
            capture = cv2.VideoCapture(clip)
            if not capture.isOpened():
                raise SystemExit(f"{clip}: OpenCV cannot open it")
            while True:
                good, picture = capture.read()
                if not good:
                    break
                own.put(letterbox(picture))
            capture.release()

    def next(self):
        self.turn = (self.turn + 1) % len(self.queues)
        return self.queues[self.turn].get()


class Counter:
    """Counts after the warm-up, until the time is over."""

    def __init__(self, options):
        self.begin = time.monotonic() + WARM_UP_S
        self.end = self.begin + options.seconds
        self.frames = self.objects = 0

    def add(self, found):
        if self.begin <= time.monotonic() < self.end:
            self.frames += 1
            self.objects += len(found)

    def running(self):
        return time.monotonic() < self.end


def report(peer, runtime, options, counter):
    figures = {
        "peer": peer,
        "runtime": runtime,
        "precision": options.precision,
        "streams": options.streams,
        "seconds": options.seconds,
        "frames": counter.frames,
        "fps": round(counter.frames / options.seconds, 1),
        "objects_per_frame": round(counter.objects / max(1, counter.frames), 2),
    }
    print(json.dumps(figures), flush=True)
    os._exit(0)  # camera threads hold pictures and have nothing to finish
