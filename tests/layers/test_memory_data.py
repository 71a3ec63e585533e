"""MemoryData: arrays and pictures handed over, served in batches again and again."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from google.protobuf import text_format

from caffecli import logs
from caffecli.errors import DataError, SpecError
from caffecli.formats.datum import from_array
from caffecli.layers import registry
from caffecli.layers.data import MemoryData
from caffecli.net.net import Net
from caffecli.proto.caffe_pb2 import TEST, TRAIN, Datum, LayerParameter, NetParameter
from caffecli.spec import text

RNG = np.random.default_rng(6)
PICTURES = RNG.integers(0, 256, (6, 3, 5, 7), dtype=np.uint8)


def layer(
    size: tuple[int, int, int] = (3, 5, 7), transform: str = "", phase: int = TRAIN, batch: int = 2
) -> MemoryData:
    names = ("channels", "height", "width")
    shape = " ".join(f"{name}: {n}" for name, n in zip(names, size, strict=True))
    param = text_format.Parse(
        f'name: "m" type: "MemoryData" top: "data" top: "label" {transform} memory_data_param '
        f"{{ batch_size: {batch} {shape} }}",
        LayerParameter(),
    )
    made = registry.create(param, phase)
    assert isinstance(made, MemoryData)
    made.check_wiring(made.param.bottom, made.param.top)
    made.context.seed = 5
    made.setup([])
    return made


def datums() -> list[Datum]:
    return [from_array(picture, 10 + i) for i, picture in enumerate(PICTURES)]


def test_arrays_are_served_round_and_round() -> None:
    made = layer()
    assert made.reshape([]) == [torch.Size((2, 3, 5, 7)), torch.Size((2,))]
    made.set_input_arrays(PICTURES, np.arange(6))
    for i in range(7):
        data, label = made()
        first = 2 * i % 6
        assert (data.dtype, label.dtype, label.shape) == (torch.float32, torch.float32, (2, 1, 1, 1))
        np.testing.assert_array_equal(data, PICTURES[first : first + 2])
        assert label.flatten().tolist() == [first, first + 1]
        assert made.batch is not None
        assert made.batch.keys == (str(first), str(first + 1))
    made.set_input_arrays(PICTURES[:2], np.array([7, 8]).reshape(2, 1, 1, 1))  # at any time, as in Caffe
    assert made()[1].flatten().tolist() == [7, 8]
    made.close()


def test_batches_are_copies() -> None:
    made, given = layer(), PICTURES.astype(np.float32)
    made.set_input_arrays(given, np.zeros(6))
    kept = [made()[0] for _ in range(9)]
    kept[0].zero_()
    assert given[:2].any()
    np.testing.assert_array_equal(kept[3], PICTURES[:2])


def test_datums_are_transformed() -> None:
    made = layer(
        (3, 4, 4), "transform_param { crop_size: 4 scale: 0.5 mean_value: 3 mean_value: 5 mean_value: 7 }", TEST
    )
    png = cv2.imencode(".png", np.ascontiguousarray(PICTURES[0].transpose(1, 2, 0)))[1].tobytes()
    made.add_datum_vector([Datum(data=png, encoded=True, label=10), *datums()[1:]])
    expected = (PICTURES[:, :, 0:4, 1:5] - np.array([3, 5, 7], np.float32).reshape(3, 1, 1)) * np.float32(0.5)
    np.testing.assert_array_equal(torch.cat([made()[0] for _ in range(3)]), expected)
    made.add_mat_vector([np.ascontiguousarray(p.transpose(1, 2, 0)) for p in PICTURES], range(6))
    batches = [made() for _ in range(3)]
    np.testing.assert_array_equal(torch.cat([data for data, _ in batches]), expected)
    assert torch.cat([label for _, label in batches]).flatten().tolist() == list(range(6))


def test_pictures_of_other_sizes_are_resized_first() -> None:
    transform = "transform_param { crop_size: 4 resize_param { height: 8 width: 6 } mirror: true mean_value: 3 }"
    made = layer((3, 4, 4), transform, TEST)
    images = [RNG.integers(0, 256, (9 - i, 5 + i, 3), dtype=np.uint8) for i in range(2)]
    made.add_mat_vector(images, [1, 2])
    data, _ = made()
    for image, got in zip(images, data, strict=True):
        cut = cv2.resize(image, (6, 8))[2:6, 1:5].transpose(2, 0, 1) - np.float32(3)
        assert np.array_equal(got, cut) or np.array_equal(got, cut[..., ::-1])
    made.close()


def test_random_crops_are_repeatable_and_go_on_after_restore() -> None:
    transform = "transform_param { crop_size: 3 mirror: true }"

    def rounds(made: MemoryData, count: int) -> torch.Tensor:
        served = []
        for _ in range(count):
            made.add_datum_vector(datums())
            served += [made()[0] for _ in range(3)]
        return torch.stack(served)

    whole = rounds(layer((3, 3, 3), transform), 4)
    first, second = layer((3, 3, 3), transform), layer((3, 3, 3), transform)
    assert torch.equal(rounds(first, 2), whole[:6])
    second.restore(first.state())
    assert torch.equal(rounds(second, 2), whole[6:])
    assert not torch.equal(whole[:3], whole[3:6])


def test_restore_goes_to_the_same_batch() -> None:
    first, second = layer(), layer()
    for made in (first, second):
        made.set_input_arrays(PICTURES, np.arange(6))
    for _ in range(4):
        first()
    second.restore(first.state())
    assert second()[1].flatten().tolist() == first()[1].flatten().tolist() == [2, 3]


def test_arrays_are_not_transformed_and_it_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    made = layer((3, 5, 7), "transform_param { scale: 2 }")
    handler = logs.show()
    made.set_input_arrays(PICTURES, np.arange(6))
    logs.hide(handler)
    assert "memory_data_layer.cpp:90] MemoryData does not transform array data on Reset()" in capsys.readouterr().err
    np.testing.assert_array_equal(made()[0], PICTURES[:2])


def test_what_is_refused() -> None:
    with pytest.raises(SpecError, match="expected memory_data_param to give batch_size, channels, height and width"):
        layer((3, 0, 7))
    with pytest.raises(SpecError, match="expected batch_size of at least 1"):
        layer(batch=0)
    made = layer()
    with pytest.raises(DataError, match=r"layer 'm': no data have been given; call its set_input_arrays"):
        made()
    with pytest.raises(
        DataError, match=r"expected data of shape count × 3 × 5 × 7, as memory_data_param says, got \(6, 3, 5, 6\)"
    ):
        made.set_input_arrays(PICTURES[..., 1:], np.arange(6))
    with pytest.raises(DataError, match=r"expected data of shape .* got \(3, 5, 7\)"):
        made.set_input_arrays(PICTURES[0], np.arange(3))
    with pytest.raises(DataError, match=r"expected one label for each of the 6 records, got shape \(5,\)"):
        made.set_input_arrays(PICTURES, np.arange(5))
    for count in (0, 5):
        with pytest.raises(DataError, match=f"expected a multiple of batch_size, 2, records, got {count}"):
            made.set_input_arrays(PICTURES[:count], np.arange(count))
    with pytest.raises(DataError, match="expected one label for each of the 6 pictures, got 2"):
        made.add_mat_vector(list(PICTURES.transpose(0, 2, 3, 1)), [1, 2])
    with pytest.raises(DataError, match=r"expected channels × height × width of 3 × 5 × 7.* picture 1 gives 1 × 5 × 7"):
        made.add_datum_vector([from_array(PICTURES[0], 0), from_array(PICTURES[1, :1], 0)])
    with pytest.raises(DataError, match="record '1': expected 3 × 5 × 7 = 105 numbers"):
        made.add_datum_vector([from_array(PICTURES[0], 0), Datum(channels=3, height=5, width=7, data=b"123")])
    made.add_datum_vector(datums())
    made()
    with pytest.raises(DataError, match="some of the pictures added before have not been served"):
        made.add_datum_vector(datums())
    made.set_input_arrays(PICTURES, np.arange(6))
    made.add_datum_vector(datums())


def test_in_a_net() -> None:
    """Values recorded from the reference."""
    param = text.parse(
        """
        layer { name: "m" type: "MemoryData" top: "x" top: "y"
          memory_data_param { batch_size: 2 channels: 3 height: 1 width: 1 } }
        layer { name: "ip" type: "InnerProduct" bottom: "x" top: "ip"
          inner_product_param { num_output: 1 weight_filler { value: 1 } } }
        layer { name: "e" type: "EuclideanLoss" bottom: "ip" bottom: "y" top: "e" }
        layer { name: "l" type: "SoftmaxWithLoss" bottom: "x" bottom: "y" top: "l" }
        layer { name: "a" type: "Accuracy" bottom: "x" bottom: "y" top: "a" }
        """,
        NetParameter(),
    )
    param.state.phase = TEST
    net = Net(param)
    made = net.layer("m")
    assert isinstance(made, MemoryData)
    made.set_input_arrays(np.arange(18).reshape(6, 3, 1, 1) % 5, np.arange(6) % 3)
    got = [{name: float(blob.detach()) for name, blob in net().items()} for _ in range(4)]
    recorded = [(0.5, 11.25, 1.3670843), (1, 10.25, 0.2367449), (0.5, 16.25, 0.9076060), (0.5, 11.25, 1.3670843)]
    for one, (a, e, ll) in zip(got, recorded, strict=True):
        assert one == pytest.approx({"a": a, "e": e, "l": ll})
