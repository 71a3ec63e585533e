"""S2VT (S. Venugopalan and others, Sequence to Sequence: Video to Text, 2015)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from caffe.net_spec import NetSpec, Top
from caffe.net_spec import layers as L
from caffecli.proto.caffe_pb2 import TEST
from scripts.zoo import parts
from scripts.zoo.model import Model, Source, inference, net, phases, solver

WORDS = 46168
FEATURES = 4096  # of VGG-16's fc7, for each frame
STEPS = 80
UNIFORM = {"type": "uniform", "min": -0.08, "max": 0.08}
INPUTS = ("cont_sentence", "input_sentence", "stage_indicator", "frame_fc7")


def models() -> Iterator[Model]:
    name = "s2vt"
    tops = ("cont_sentence", "input_sentence", "target_sentence", "stage_indicator", "frame_fc7")

    def chunks(part: str) -> Source:
        records = {"source": f"data/s2vt/{part}/hdf5_chunk_list.txt", "batch_size": STEPS}
        return Source("HDF5Data", tops, {"hdf5_data_param": records}, "data")

    def training(n: NetSpec) -> None:
        scores = caption(n)
        target = n.target_sentence
        n.cross_entropy_loss = L.SoftmaxWithLoss(
            scores, target, loss_weight=20, loss_param={"ignore_label": -1}, softmax_param={"axis": 2}
        )
        n.accuracy = L.Accuracy(
            scores, target, include=[{"phase": TEST}], accuracy_param={"axis": 2, "ignore_label": -1}
        )

    def step(n: NetSpec) -> None:
        n.probs = L.Softmax(caption(n), axis=2)

    inputs = [
        Source("Input", (top,), {"shape": [{"dim": [1, 1, FEATURES] if top == "frame_fc7" else [1, 1]}]})
        for top in INPUTS
    ]
    yield Model(
        name,
        "S2VT: frames of a film to a sentence, a word at a time.",
        {
            "deploy.prototxt": inference(net("s2vt", inputs, step)),
            "train_val.prototxt": net("s2vt", phases(chunks, ("train_batches",), ("valid_batches",)), training),
            "solver.prototxt": solver(
                name,
                test_iter=[25],
                test_interval=1000,
                base_lr=0.01,
                lr_policy="step",
                gamma=0.5,
                stepsize=20000,
                max_iter=25000,
                weight_decay=0,
                clip_gradients=10,
                display=1,
                average_loss=100,
                snapshot=1000,
                random_seed=1701,
            ),
        },
    )


def caption(n: NetSpec) -> Top:
    """Scores of the next word at each step, (steps, streams, words):
    one LSTM reads the frames, one on top of it the words.
    """
    n.stage_indicator_3axis = L.Reshape(n.stage_indicator, shape={"dim": [0, 0, 1]}, name="reshape_stg_indicator")
    n.embedded_input_frames = L.InnerProduct(
        n.frame_fc7,
        num_output=500,
        axis=-1,
        weight_filler=parts.XAVIER,
        bias_filler=parts.constant(0.2),
        param=parts.learn(),
        name="embed_encoder",
    )
    n.embedded_input_sentence = L.Embed(
        n.input_sentence,
        num_output=500,
        input_dim=WORDS,
        bias_term=False,
        weight_filler=UNIFORM,
        param=[{"lr_mult": 1}],
        name="embedding",
    )
    n.lstm1 = lstm(n["embedded_input_frames"], n.cont_sentence)
    n.lstm1_video_sequence = L.Concat(
        n.lstm1, n.embedded_input_sentence, n.stage_indicator_3axis, axis=2, name="concat"
    )
    n.lstm2 = lstm(n["lstm1_video_sequence"], n.cont_sentence)
    fillers: dict[str, Any] = {"weight_filler": UNIFORM, "bias_filler": parts.constant()}
    return parts.inner(n, "predict", n.lstm2, WORDS, axis=2, **fillers)


def lstm(bottom: Top, cont: Top) -> Top:
    return L.LSTM(
        bottom, cont, recurrent_param={"num_output": 1000, "weight_filler": UNIFORM, "bias_filler": parts.constant()}
    )
