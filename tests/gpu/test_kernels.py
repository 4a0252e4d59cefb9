"""On a GPU: each fused kernel against plain arithmetic, each precision class within its band."""

import pytest
import torch
import torch.nn.functional as F

from shared.vocabulary.plan import Build
from tests.engine.rendering import REF, Render, small
from worker.engine.faults import EngineFault
from worker.engine.kernels import rows, text
from worker.engine.kernels.attention import choose
from worker.engine.kernels.norm import Norm
from worker.engine.kernels.precision import Linear8

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA GPU"),
]

CUDA = torch.device("cuda")
TOKENS = 700


def drawn(*shape: int, seed: int = 0, dtype: torch.dtype = torch.bfloat16) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(CUDA, dtype)


def off(given: torch.Tensor, right: torch.Tensor) -> float:
    """Relative difference."""
    given, right = given.double().cpu(), right.double().cpu()
    return ((given - right).norm() / right.norm()).item()


def read(low: rows.Rows) -> torch.Tensor:
    """The values of fp8 rows."""
    return low[0].float() * low[1]


@pytest.mark.parametrize("width", [48, 3072, 5120])
@pytest.mark.parametrize(("sets", "first"), [(1, TOKENS), (2, 300)], ids=["one", "two"])
def test_adding_and_norming_in_one_pass_equals_doing_it_on_the_cpu(width, sets, first):
    hidden, update = drawn(1, TOKENS, width), drawn(1, TOKENS, width, seed=1)
    scale, shift, gate = drawn(3, sets, width, seed=2, dtype=torch.float32)
    norm = Norm(scale, shift, first, 1e-6)

    summed, normed = rows.add_norm(hidden, norm, update, gate)
    _, low = rows.add_norm(hidden, norm, update, gate, low=True)

    on_host = Norm(scale.cpu(), shift.cpu(), first, 1e-6)
    right = rows.add_norm(hidden.cpu(), on_host, update.cpu(), gate.cpu())
    assert off(summed, right[0]) < 1e-3
    assert off(normed, right[1]) < 1e-3
    assert off(read(low), right[1]) < 0.04
    assert torch.equal(rows.gated_add(hidden, update, gate, first), summed)


@pytest.mark.parametrize(("heads", "size"), [(2, 24), (24, 128), (40, 128)])
def test_norming_and_turning_in_one_pass_equals_doing_it_on_the_cpu(heads, size):
    joint = drawn(1, TOKENS, 3 * heads * size)
    x, weight = joint.chunk(3, -1)[1], drawn(heads * size, seed=1)
    angles = drawn(TOKENS, size // 2, seed=2, dtype=torch.float32)

    turned = rows.norm_rope(x, weight, angles.cos(), angles.sin(), 1e-6)

    given = (value.cpu() for value in (x, weight, angles.cos(), angles.sin()))
    assert off(turned, rows.norm_rope(*given, 1e-6)) < 2e-3


@pytest.mark.parametrize("gelu", [False, True], ids=["plain", "gelu"])
@pytest.mark.parametrize("width", [96, 5120, 13824, 14336])
def test_rows_lowered_to_fp8_keep_their_values(width, gelu):
    x = drawn(1, TOKENS, width)

    low = rows.lower(x, gelu=gelu)

    right = F.gelu(x.double(), approximate="tanh") if gelu else x
    assert off(read(low), right) < 0.04


def test_a_lowered_linear_stays_within_fp8_of_the_linear_it_was():
    linear = torch.nn.Linear(3072, 5120, device=CUDA, dtype=torch.bfloat16)
    x = drawn(1, TOKENS, 3072)

    product = Linear8(linear, CUDA)(rows.lower(x))

    assert off(product, linear.double()(x.double())) < 0.05


@pytest.mark.parametrize(("heads", "size"), [(2, 24), (24, 128), (40, 128)])
@pytest.mark.parametrize("count", [1, 63, 64, 130, 512])
def test_padding_that_is_counted_gives_what_padding_gives(heads, size, count):
    norm = torch.nn.RMSNorm(heads * size, eps=1e-6, device=CUDA, dtype=torch.bfloat16)
    norm.weight.data = drawn(heads * size, seed=1)
    q, (keys, values) = drawn(1, TOKENS, heads * size), drawn(2, 1, count, heads, size, seed=2)
    times = 513 - count

    attended = text.attend(q, norm, (keys, values), times)

    padded = [torch.cat([x, x[:, -1:].expand(-1, times - 1, -1, -1)], 1) for x in (keys, values)]
    exact = [x.double().transpose(1, 2) for x in (norm(q).unflatten(2, (heads, size)), *padded)]
    right = F.scaled_dot_product_attention(*exact).transpose(1, 2).flatten(2)
    assert off(attended, right) < 0.01


@pytest.mark.parametrize("name", ["fa3", "cudnn", "flash", "native"])
def test_every_backend_attends_as_exact_arithmetic_does(name):
    q, k, v = (drawn(1, TOKENS, 3, 128, seed=seed) for seed in range(3))
    kernel = choose(name, CUDA, low=False)

    attended = kernel.attend(q, k, v)

    exact = [x.double().transpose(1, 2) for x in (q, k, v)]
    right = F.scaled_dot_product_attention(*exact).transpose(1, 2)
    assert kernel.name == name
    assert off(attended, right) < 0.01
    if kernel.with_lse:
        scores = exact[0] @ exact[1].mT / 128**0.5
        assert off(kernel.with_lse(q, k, v)[1], scores.logsumexp(-1)) < 1e-3


def test_auto_takes_fa3_where_its_wheel_is():
    assert choose("auto", CUDA, low=False).name == "fa3"
    assert choose("auto", CUDA, low=True).name == "fa3_fp8"


def test_fp8_attention_is_refused_for_heads_that_it_cannot_take(models, picture, tmp_path):
    render = Render(models, picture, tmp_path, "cuda:0", Build(precision="fp8_attn"))

    with pytest.raises(EngineFault, match="in fp8: fa3 does not run here on heads of 24"):
        render.load("wan-tiny-t2v")


BANDS = {"bf16": 0.02, "fp8": 0.15}  # of final latents, against `reference`


@pytest.fixture(scope="module")
def makers(models, picture, tmp_path_factory):
    """An engine of each class."""
    return {
        name: Render(
            models, picture, tmp_path_factory.mktemp(name), "cuda:0", Build(precision=name)
        )
        for name in ("reference", *BANDS)
    }


def latents(render: Render, spec) -> torch.Tensor:
    seen: list[torch.Tensor] = []
    render.load(spec.model)
    conv = render.engine._parts.vae.post_quant_conv
    handle = conv.register_forward_pre_hook(lambda _, given: seen.append(given[0].float()))
    try:
        render(spec)
    finally:
        handle.remove()
    return torch.cat(seen, 2)


@pytest.mark.parametrize("precision", BANDS)
@pytest.mark.parametrize(
    "spec",
    [small(), small("wan-tiny-i2v", image=REF), small("wan-tiny-ti2v", image=REF)],
    ids=["t2v", "i2v", "ti2v"],
)
def test_each_class_stays_within_its_band_of_the_reference(makers, spec, precision):
    given = latents(makers[precision], spec)

    right = latents(makers["reference"], spec)

    assert off(given, right) < BANDS[precision]


@pytest.mark.parametrize("precision", ["reference", *BANDS])
def test_fifty_mixed_jobs_leave_the_memory_as_it_was(makers, precision):
    render = makers[precision]
    render(small())
    before = torch.cuda.memory_allocated()

    for i in range(50):
        render(small(steps=1 + i % 3, frames=5 + 4 * (i % 2), guidance_high=4.0 - 3 * (i % 2)))

    assert torch.cuda.memory_allocated() == before
