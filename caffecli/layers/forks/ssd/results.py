"""What a DetectionOutput finds, as the files that VOC's, COCO's and ILSVRC's programs score."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from caffecli import logs
from caffecli.formats.atomic import replacing
from caffecli.layers.base import Layer
from caffecli.layers.forks.ssd.originals import in_pixels, read_originals
from caffecli.proto.caffe_pb2 import LabelMap
from caffecli.spec import text

#: the file's name where the net gives no output_name_prefix
_NAME = "detections"


class Found(NamedTuple):
    """A box of a picture: its corner and size in pixels, to hundredths."""

    picture: str
    label: int
    score: float
    box: tuple[float, ...]

    def corners(self) -> str:
        """In whole pixels, cut off: xmin ymin xmax ymax."""
        x, y, width, height = map(int, self.box)
        return f"{x} {y} {x + width} {y + height}"


class Results:
    """Collects boxes of pictures, and writes them each time that all have passed."""

    def __init__(self, layer: Layer) -> None:
        """Of a layer whose save_output_param is complete. Raises FormatError where a file cannot be read, SpecError
        where names or numbers do not fit.
        """
        param = layer.param.detection_output_param
        saved = param.save_output_param
        self.layer, self.format, self.prefix = layer, saved.output_format, saved.output_name_prefix
        self.folder: Path | None = Path(saved.output_directory)  # None: it cannot be made
        self.resize = saved.resize_param if saved.HasField("resize_param") else None
        if self.format not in ("VOC", "COCO", "ILSVRC"):
            raise layer.spec_error(f'expected output_format: "VOC", "COCO" or "ILSVRC", got {self.format!r}')
        labels = [label for label in range(param.num_classes) if label != param.background_label_id]
        names = {item.label: item.name for item in text.read(saved.label_map_file, LabelMap).item}
        missing = [label for label in labels if label not in names]
        if missing:
            raise layer.spec_error(f"{saved.label_map_file!r} has no item of label {missing[0]}")
        self.names = {label: names[label] for label in labels}
        for part in [self.prefix, *(self.names.values() if self.format == "VOC" else [])]:
            if any(mark in part for mark in "/\\\0\n"):
                raise layer.spec_error(
                    f"{part!r:.80} cannot be part of a file's name: change it in the net or label map"
                )
        self.originals = read_originals(layer, saved.name_size_file)
        self.count = saved.num_test_image or len(self.originals)
        if self.count > len(self.originals):
            raise layer.spec_error(
                f"num_test_image: {self.count}, but {saved.name_size_file!r} names {len(self.originals)} pictures"
            )
        self.seen = 0
        self.found: list[Found] = []

    @classmethod
    def of(cls, layer: Layer) -> Results | None:
        """What a layer's save_output_param asks for; None where it asks for nothing, or what it needs is not there."""
        saved = layer.param.detection_output_param.save_output_param
        if not saved.output_directory:
            return None
        for name, path in (("label_map_file", saved.label_map_file), ("name_size_file", saved.name_size_file)):
            if not path or not Path(path).is_file():
                _warn(layer, f"{name} {path!r} is not there" if path else f"save_output_param has no {name}")
                return None
        return cls(layer)

    def add(self, rows: Tensor, images: int) -> None:
        """Take the boxes (K, 7) of the next images. Raises FormatError where a file cannot be written."""
        if self.folder is None:
            return
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            _warn(self.layer, f"it cannot be made ({error.strerror})")
            self.folder = None
            return
        rows = rows.cpu().float().nan_to_num()
        for image in range(images):
            own, original = rows[rows[:, 0] == image], self.originals[self.seen]
            corners = in_pixels(own[:, 3:], original, self.resize)
            corners[:, 2:] -= corners[:, :2]
            hundredths = ((corners * 100 + 0.5).floor() / 100).tolist()
            for label, score, box in zip(own[:, 1].tolist(), own[:, 2].tolist(), hundredths, strict=True):
                self.found.append(Found(original.name, int(label), score, tuple(box)))
            self.seen += 1
            if self.seen == self.count:
                for name, lines in self._files().items():
                    with replacing(self.folder / name) as file:
                        file.write("".join(f"{line}\n" for line in lines).encode("utf-8", "surrogateescape"))
                self.seen, self.found = 0, []

    def _files(self) -> dict[str, list[str]]:
        """The lines of each file, by its name."""
        if self.format == "VOC":
            files: dict[str, list[str]] = {f"{self.prefix}{name}.txt": [] for name in self.names.values()}
            for each in self.found:
                own = files[f"{self.prefix}{self.names[each.label]}.txt"]
                own.append(f"{each.picture} {each.score:g} {each.corners()}")
            return files
        if self.format == "ILSVRC":
            lines = [f"{each.picture} {each.label} {each.score:g} {each.corners()}" for each in self.found]
            return {f"{self.prefix or _NAME}.txt": lines}
        items = ",\n".join(json.dumps(self._item(each), ensure_ascii=False) for each in self.found)
        return {f"{self.prefix or _NAME}.json": ["[", *([items] if items else []), "]"]}

    def _item(self, each: Found) -> dict[str, object]:
        return {
            "image_id": _number(each.picture),
            "category_id": _number(self.names[each.label]),
            "bbox": [round(value, 2) for value in each.box],
            "score": float(f"{each.score:.9g}"),
        }


def _number(name: str) -> int | str:
    return int(name) if name.isdecimal() else name


def _warn(layer: Layer, what: str) -> None:
    folder = layer.param.detection_output_param.save_output_param.output_directory
    logs.warning("detection_output_layer.cpp:56", f"Layer {layer.name!r}: nothing is written to {folder!r}: {what}.")
