"""A table of what `lmk bench` has measured."""

from lmk.benchmarks.runners.markdown import markdown

SPEED = {"p50": 8.333, "speed_up": 1.0}
EAGER = {"precision": "fp32", "batches": {"1": SPEED, "8": SPEED}, "first_s": 1.78, "rss": 743.2}
OURS = EAGER | {"batches": {"1": {"p50": 4.2, "speed_up": 2.252}, "8": SPEED}}


def test_a_row_a_runner():
    drift = {"drift_mean": 9e-6, "drift_p99": 0.0413}
    text = markdown({"batches": [1, 8], "runners": {"eager": EAGER, "ort-cpu": OURS | drift}})
    assert text.splitlines() == [
        "|  | batch 1 | batch 8 | drift, px | first result, s | memory, MiB |",
        "| :-- | --: | --: | --: | --: | --: |",
        "| PyTorch, fp32 | 8.33 ms | 8.33 ms |  | 1.8 | 743 |",
        "| ONNX Runtime, fp32 | 2.25 × | 1.00 × | 0.00001 / 0.041 | 1.8 | 743 |",
    ]
