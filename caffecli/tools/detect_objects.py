"""``caffecli detect`` with a detector: the objects in pictures and videos."""

from __future__ import annotations

import contextlib
import errno
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import caffe
from caffecli import logs
from caffecli.errors import DataError, SpecError
from caffecli.formats import annotated, caffemodel, datum, detections, picture
from caffecli.formats.atomic import cannot_read, cannot_write, read_file, replacing
from caffecli.formats.db import is_database
from caffecli.formats.detections import VIDEOS, Found, Object
from caffecli.formats.drawn import VideoFile, with_boxes
from caffecli.formats.list_file import why_not_there
from caffecli.layers import user_modules
from caffecli.net.weights import tell_lacking
from caffecli.proto.caffe_pb2 import LabelMap, LabelMapItem, LayerParameter
from caffecli.spec import load, text
from caffecli.tools import detect_regions
from caffecli.tools.detector_input import Preparation, check_numbers, preparation
from caffecli.tools.open import build_net, read_net
from caffecli.tools.picture_files import PICTURES, is_list, listed
from caffecli.tools.picture_options import check_takes_pictures, choose_mode
from caffecli.tools.summarize import Outline

Pixels = NDArray[np.uint8]
Floats = NDArray[np.float32]
#: finds objects in a named picture, blue first: rows class, score, xmin, ymin, xmax, ymax
Find = Callable[[str, Pixels], Floats]

#: how many scores of a class are said of a picture
_SAID = 20


@dataclass(frozen=True, kw_only=True)
class ObjectOptions:
    """``input_file``: a picture, a folder of pictures, a .txt of their paths, a video, or a database of
    ``convert_annoset``. ``output_file``: a file, for ``voc`` a folder, None for none; ``draw``: the folder for the
    pictures, or the videos, with boxes.

    A pixel of 0 to 255, blue first where ``bgr``, is (pixel - ``mean``) * ``input_scale`` in the net, the picture
    brought to its size as ``resize_mode`` says; what is None is as the net was trained, see ``detector_input``. For
    nets of the R-CNN family ``side``, ``max_side``, ``nms_threshold`` and ``proposals``, see ``detect_regions``.

    ``threshold``: the least score; None: 0.3, for a database 0.01, and 0 for a net that proposes regions.
    """

    model_def: str
    pretrained_model: str
    input_file: str
    output_file: str | None = None
    format: detections.Format = "json"
    draw: str | None = None
    label_map_file: str | None = None
    threshold: float | None = None
    mean: str | None = None
    like: str | None = None
    input_scale: float | None = None
    resize_mode: str | None = None
    side: float | None = None
    max_side: float | None = None
    nms_threshold: float | None = None
    proposals: str | None = None
    bgr: bool = True
    gpu: str | None = None
    cpu: bool = False
    layers: tuple[str, ...] = ()


def detect_objects(options: ObjectOptions) -> list[Found]:
    """Find objects, print how many of which class, write and draw them; returns them."""
    user_modules.load(options.layers)
    choose_mode(options.gpu, options.cpu)
    refuse_to_overwrite(options)
    if not os.path.lexists(options.input_file):
        raise DataError(
            f"there is no {options.input_file!r}; give a picture, a folder, a .txt of pictures, a video or a database"
        )
    classes = read_classes(options.label_map_file)
    check_takes_pictures(options.model_def)
    net = caffe.Net(options.model_def, caffe.TEST, weights=options.pretrained_model)
    _doubt(net, classes, options)
    find, any_object, threshold = finder(net, options)
    names = {label: item.display_name or item.name for label, item in classes.items()}
    names = {1: "object"} if any_object else names
    found: list[Found] = []
    with Drawing(options.draw, frame_rate(Path(options.input_file))) as drawing:
        for name, frame in frames(Path(options.input_file)):
            rows = [(int(label), *rest) for label, *rest in find(name, frame).tolist() if rest[0] >= threshold]
            objects = [Object(label, names.get(label, str(label)), *rest) for label, *rest in rows]
            found.append(Found(name, frame.shape[1], frame.shape[0], objects))
            drawing.add(found[-1], frame)
            shown = os.fsencode(name).decode("utf-8", "replace")
            print(f"{shown}: {said(objects)}", flush=True)
    if not found:
        raise DataError(f"{options.input_file!r} holds no picture that can be read")
    if options.output_file is not None:
        _write(options.output_file, options, classes, found)
    return found


def _write(path: str, options: ObjectOptions, classes: dict[int, LabelMapItem], found: list[Found]) -> None:
    # SSD's label map of COCO has the categories' ids as names
    numbers = {label: int(item.name) for label, item in classes.items() if item.name.isdecimal()}
    if options.format == "coco" and any(one.label not in numbers for each in found for one in each.objects):
        logs.warning(
            "detection_output_layer.cpp:52",
            f"{path!r} has the net's numbers of classes as category_id; if COCO's differ, give --labels with "
            "COCO's ids as names",
        )
    named = Counter(detections.result_name(each.picture) for each in found)
    if options.format in ("coco", "voc") and named and max(named.values()) > 1:
        logs.warning(
            "detection_output_layer.cpp:52",
            f"{path!r} has several pictures as {named.most_common(1)[0][0]!r}, as these results leave out folders and "
            "endings; rename the pictures, or write JSON or .csv",
        )
    detections.write(path, options.format, found, numbers)
    print(f"Wrote {path}")


def refuse_to_overwrite(options: ObjectOptions) -> None:
    """Raise DataError where pictures with boxes would take the place of those without, or the results that of a picture
    or video.
    """
    given = Path(options.input_file)
    if options.draw is not None:
        same = Path(options.draw).resolve() == (given if given.is_dir() else given.parent).resolve()
        if is_list(given):
            same = any(target(options.draw, name).resolve() == Path(name).resolve() for name in listed(given))
        if same:
            raise DataError(
                f"--draw {options.draw!r} is where the pictures are, which it would overwrite; name another folder"
            )
    if options.output_file is not None and Path(options.output_file).suffix.lower() in (*PICTURES, *VIDEOS):
        raise DataError(
            f"{options.output_file!r} is to take boxes, as JSON or CSV, and is called as a picture or video; for "
            "pictures with boxes give --draw FOLDER"
        )
    if options.output_file is not None and not Path(options.output_file).absolute().parent.is_dir():
        raise cannot_write(options.output_file, FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT)))


def _doubt(net: Any, classes: dict[int, LabelMapItem], options: ObjectOptions) -> None:
    """Warn of weights, or a label map, that look like another net's."""
    with logs.quiet():
        layers = load.load_net(options.model_def).layer
        there = {name for name, blobs in caffemodel.read(options.pretrained_model).items() if blobs}
    tell_lacking((layer for layer in layers if layer.name in net.params), there, options.pretrained_model)
    count = _classes(net, layers)
    if classes and count and not set(range(1, count)) <= set(classes) <= set(range(count)):
        logs.warning(
            "detection_output_layer.cpp:52",
            f"{options.label_map_file!r} has the classes {min(classes)} to {max(classes)}, {len(classes)} of them, and "
            f"the net {count}, with the background: names may be those of other classes; give the label map of its "
            "training data",
        )


def _classes(net: Any, layers: Iterable[LayerParameter]) -> int:
    """How many classes a detector tells apart, with the background's; 0 where it does not say."""
    if "cls_prob" in net.outputs:
        return int(net.blobs["cls_prob"].shape[1])
    counts = [0]
    for layer in layers:
        counts.append(layer.detection_output_param.num_classes)
        for yolo in (layer.yolo_detection_output_param, layer.yolov3_detection_output_param):
            if yolo.HasField("num_classes"):
                counts.append(yolo.num_classes + 1)
    return max(counts)


def read_classes(path: str | None) -> dict[int, LabelMapItem]:
    """The classes of a label map by number. Raises SpecError."""
    return {} if path is None else {item.label: item for item in text.read(path, LabelMap).item}


def finder(net: Any, options: ObjectOptions) -> tuple[Find, bool, float]:
    """What finds objects with a net; whether it proposes regions of any object; and the least score.

    Raises SpecError for a net that is no detector, and for options that are not for its kind.
    """
    of_regions = detect_regions.knows(net.blobs, net.outputs)
    others = ("resize_mode",) if of_regions else ("side", "max_side", "nms_threshold", "proposals")
    for name in others:
        if getattr(options, name) is not None:
            kind = "takes pictures as they are, but for their size" if of_regions else "is not of the R-CNN family"
            raise SpecError(f"--{name} is not for {options.model_def!r}, which {kind}")
    least = 0.01 if is_database(Path(options.input_file)) else 0.3
    if not of_regions:
        check(net, options)
        prepared = preparation(
            options.pretrained_model,
            tuple(net.blobs[net.inputs[0]].shape),
            mean=options.mean,
            like=options.like,
            input_scale=options.input_scale,
            resize_mode=options.resize_mode,
            bgr=options.bgr,
        )
        threshold = least if options.threshold is None else options.threshold
        return (lambda name, frame: run(net, name, frame, prepared)), False, threshold
    proposes = "cls_prob" not in net.outputs
    threshold = options.threshold if options.threshold is not None else 0 if proposes else least
    regions = detect_regions.RegionNet(
        net,
        detect_regions.RegionOptions(
            model_def=options.model_def,
            weights=options.pretrained_model,
            mean=options.mean,
            like=options.like,
            input_scale=options.input_scale,
            bgr=options.bgr,
            side=options.side,
            max_side=options.max_side,
            proposals=options.proposals,
            nms_threshold=0.3 if options.nms_threshold is None else options.nms_threshold,
            threshold=threshold,
        ),
    )
    return regions.find, proposes, threshold


def is_detector(model: str, layers: Sequence[str] = ()) -> bool:
    """Whether the net of a prototxt finds objects; ``layers``: modules of the user's own that register layers.

    Raises SpecError and ShapeError for a net that cannot be built, or takes no pictures.
    """
    with logs.quiet():
        param = read_net(model, layers=layers)
        check_takes_pictures(model)
        net = build_net(param, model, kind=Outline)
    with contextlib.closing(net):
        made = {top for node in net.nodes for top in node.tops}
        return detect_regions.knows(made, net.outputs) or any(is_boxes(net.shape(name)) for name in net.outputs)


def check(net: Any, options: ObjectOptions) -> None:
    """Raise SpecError where the net is no detector, or takes other pictures."""
    shapes = {name: net.blobs[name].shape for name in net.outputs}
    if len([shape for shape in shapes.values() if is_boxes(shape)]) != 1:
        what = ", ".join(f"{name} {tuple(shape)}" for name, shape in shapes.items())
        raise SpecError(
            f"{options.model_def!r} is no detector's deploy net: expected one output of (1, 1, boxes, 7), as "
            f"DetectionOutput makes it, or rois and cls_prob, as Faster R-CNN has; it has {what or 'none'}; for "
            "windows of pictures give a .csv"
        )
    shape: tuple[int, ...] = tuple(net.blobs[net.inputs[0]].shape) if net.inputs else ()
    if len(shape) != 4 or shape[1] not in (1, 3):
        raise SpecError(f"{options.model_def!r}: expected an input (num, 3, height, width), got {shape or 'none'}")


def is_boxes(shape: Iterable[int]) -> bool:
    dims = tuple(shape)
    return len(dims) == 4 and dims[:2] == (1, 1) and dims[3] in (7, 12, 15)  # TextBoxes++ has words behind its boxes


def frames(path: Path) -> Iterator[tuple[str, Pixels]]:
    """The pictures of a file, a folder, a list or a database, or a video's frames, blue first, with their names; those
    of a list are as they stand there.

    A picture of a folder or a list that cannot be read is named in a warning and left out. Raises DataError.
    """
    if is_database(path):
        yield from _records(path)
        return
    if path.suffix.lower() in VIDEOS:
        yield from _video(path)
        return
    names = [path.name]
    if is_list(path):
        names = listed(path)
    elif path.is_dir():
        names = sorted(file.name for file in path.iterdir() if file.suffix.lower() in PICTURES)
        if not names:
            raise DataError(f"the folder {str(path)!r} has no pictures; their names end in {', '.join(PICTURES)}")
    folder = Path() if is_list(path) else path if path.is_dir() else path.parent
    for name in names:
        file = folder / name
        try:
            yield name, picture.decode(read_file(file))
        except (DataError, OSError) as error:
            why = f"{str(file)!r} {error}" if isinstance(error, DataError) else str(cannot_read(file, error))
            if is_list(path) and not file.exists():
                beside = (path.parent / name).exists()
                why = f"there is no {name!r} below the working folder; " + (
                    "it is below the list's: run there" if beside else why_not_there(name)
                )
            if not (path.is_dir() or is_list(path)):
                raise DataError(why) from error
            logs.warning("io.cpp:70", f"{why}; left out")


def target(folder: str | Path, name: str) -> Path:
    """Where a picture, or a video, of that name is drawn: below ``folder`` whatever folders it names."""
    return Path(folder).joinpath(*(part for part in Path(name).parts if part not in ("..", "/")))


def _records(path: Path) -> Iterator[tuple[str, Pixels]]:
    """The pictures of a database of ``convert_annoset``, named by their files."""
    for name, record in annotated.records(path):
        try:
            pixels = (
                picture.decode(record.datum.data)
                if record.datum.encoded
                else np.ascontiguousarray(datum.to_array(record.datum, key=name).transpose(1, 2, 0), np.uint8)
            )
        except DataError as error:
            raise DataError(f"{str(path)!r}, record {name!r}: {error}") from error
        yield name, pixels if pixels.shape[2] == 3 else np.repeat(pixels[..., :1], 3, 2)


def _video(path: Path) -> Iterator[tuple[str, Pixels]]:
    import cv2

    video = cv2.VideoCapture(str(path))
    try:
        number = 0
        if not video.isOpened():
            raise DataError(
                f"{str(path)!r} is no video that OpenCV can open; look whether a player can, and bring it into another "
                "form (ffmpeg -i VIDEO out.mp4)"
            )
        while True:
            there, frame = video.read()
            if not there:
                break
            yield detections.frame_name(path.name, number), np.asarray(frame, np.uint8)
            number += 1
    finally:
        video.release()


def frame_rate(path: Path) -> float:
    """A video's frames in a second; 25 where it does not say."""
    if path.suffix.lower() not in VIDEOS:
        return 25.0
    import cv2

    video = cv2.VideoCapture(str(path))
    rate = float(video.get(cv2.CAP_PROP_FPS))
    video.release()
    return rate if 0 < rate <= 1000 else 25.0


def run(net: Any, name: str, frame: Pixels, prepared: Preparation) -> Floats:
    """The objects that a net with DetectionOutput finds, as ``Find``. Raises DataError where a box is none."""
    blob = net.blobs[net.inputs[0]]
    seen = prepared.picture(frame, blob.shape[1])
    if tuple(blob.shape) != (1, *seen.shape):
        blob.reshape(1, *seen.shape)
    blob.data[...] = seen
    net.forward()
    rows = next(net.blobs[name].data for name in net.outputs if is_boxes(net.blobs[name].shape))[0, 0, :, :7]
    rows = rows[rows[:, 1] >= 0]
    check_numbers(name, rows)
    return np.concatenate([rows[:, 1:3], prepared.boxes(rows[:, 3:], *frame.shape[:2])], 1)


def said(objects: list[Object]) -> str:
    """``2 dog (0.98, 0.61), 1 cat (0.87)``."""
    by_name: dict[str, list[str]] = {}
    for each in sorted(objects, key=lambda one: -one.score):
        by_name.setdefault(each.name, []).append(f"{each.score:.2f}")
    words = {name: ", ".join(scores[:_SAID] + ["..."] * (len(scores) > _SAID)) for name, scores in by_name.items()}
    return ", ".join(f"{len(by_name[name])} {name} ({scores})" for name, scores in words.items()) or "nothing"


class Drawing:
    """Writes pictures, or videos, with boxes into a folder; nothing where that is None."""

    def __init__(self, folder: str | None, rate: float) -> None:
        """``rate``: a video's frames in a second."""
        self.rate = rate
        self.folder = None if folder is None else Path(folder)
        self._video: VideoFile | None = None

    def __enter__(self) -> Drawing:
        if self.folder is not None:
            self.folder.mkdir(parents=True, exist_ok=True)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._video is not None:
            self._video.close(keep=kind is None)

    def add(self, found: Found, frame: Pixels) -> None:
        if self.folder is None:
            return
        import cv2

        surest_last = sorted(found.objects, key=lambda one: one.score)
        boxes = [(each[3:], f"{each.name} {each.score:.2f}", each.label) for each in surest_last]
        drawn = with_boxes(frame, boxes)
        video = detections.video_of(found.picture)
        path = target(self.folder, video or found.picture)
        if not video:
            path.parent.mkdir(parents=True, exist_ok=True)
            path = path if path.suffix.lower() in PICTURES else path.with_name(f"{path.name}.png")
            whole, data = cv2.imencode(path.suffix, drawn)
            if not whole:
                raise DataError(f"cannot write {str(path)!r} as {path.suffix}")
            with replacing(path) as file:
                file.write(data.tobytes())
            return
        if self._video is None:
            self._video = VideoFile(path.with_suffix(".avi"), "MJPG", self.rate)
        self._video.add(drawn)
