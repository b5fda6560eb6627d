"""What the time of a step goes to."""

import pytest
import torch

from lmk.benchmarks.studies.training import OPERATORS, breakdown, kind_of


def test_the_operators_of_a_cpu():
    a = torch.rand(200, 200)
    found = breakdown(lambda: [a @ a for _ in range(5)][0], 5, torch.device("cpu"))
    shares = found["operators_percent"]
    assert next(iter(shares)) == "aten::mm" and len(shares) <= OPERATORS
    assert 99 < sum(shares.values()) < 101


@pytest.mark.parametrize(
    ("kernel", "kind"),
    [
        ("triton_poi_fused_convolution_relu_3", "fused by inductor"),
        ("sm90_xmma_fprop_implicit_gemm_bf16bf16_bf16f32_f32_nhwckrsc", "convolution"),
        ("cudnn::batchnorm_bwtr_nhwc_semiPersist<__nv_bfloat16>", "batch-norm"),
        ("nvjet_tst_128x64_64x7_2x1_v_bz_NNN", "matrix product"),
        ("void at::native::(anonymous namespace)::multi_tensor_apply_kernel<...Adam>", "optimiser"),
        ("void at::native::vectorized_elementwise_kernel<4, at::native::add>", "pointwise"),
        ("Memcpy HtoD (Pinned -> Device)", "copy"),
        ("void at::native::reduce_kernel<512, 1, at::native::MeanOps>", "reduction"),
        ("grid_sampler_2d_kernel<float, int>", "other"),
    ],
)
def test_kinds_of_kernels(kernel, kind):
    assert kind_of(kernel) == kind


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_the_kernels_of_a_gpu():
    a = torch.rand(2000, 2000, device="cuda")

    def turn():
        for _ in range(5):
            a @ a
        torch.cuda.synchronize()

    found = breakdown(turn, 5, torch.device("cuda"))
    assert next(iter(found["kernels_percent"])) == "matrix product"
    assert found["kernels_per_step"] >= 1 and 0 < found["gpu_busy_percent"] < 110
