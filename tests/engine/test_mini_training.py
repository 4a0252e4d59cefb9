"""Training code of the miniature: the VAE that it teaches is the one that diffusers runs."""

import pytest
import torch
import torch.nn.functional as F
from click.testing import CliRunner
from diffusers import AutoencoderKLWan, WanPipeline

from mini import lessons, ship, train, whole, world
from mini.lessons import Course
from mini.optimizers import Muon
from mini.parts import transformer
from mini.state import Clock, State
from mini.train import VIEWS, Amount


def test_a_whole_clip_is_coded_as_diffusers_does_it_by_chunks():
    torch.manual_seed(1)
    chunked, at_once = (AutoencoderKLWan(base_dim=8, num_res_blocks=1).eval() for _ in range(2))
    at_once.load_state_dict(chunked.state_dict())
    whole.prepare(at_once)
    for frames in (1, 5, 9):
        clip = torch.rand(1, 3, frames, 32, 32) * 2 - 1
        with torch.no_grad():
            right = chunked.encode(clip).latent_dist.mean
            pictures = chunked.decode(right).sample

            mean, _ = whole.encode(at_once, clip)
            made = whole.decode(at_once, mean).clamp(-1, 1)

        torch.testing.assert_close(mean, right, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(made, pictures, rtol=1e-4, atol=1e-5)


def test_a_course_teaches_its_own_noise_only():
    course = Course(shift=12.0, lowest=0.875)

    sigmas = course.sigmas(1000, torch.device("cpu"))

    assert 0.875 <= sigmas.min() < 0.88
    assert 0.995 < sigmas.max() <= 1


def test_a_folded_text_is_attended_to_as_the_whole_one():
    torch.manual_seed(1)
    model, latents = transformer().eval(), torch.randn(2, 16, 3, 4, 4)
    text = torch.randn(2, 20, 64)
    whole_text, folded = (F.pad(text, (0, 0, 0, more)) for more in (492, 12))
    with torch.no_grad():
        right = model(latents, torch.tensor([500.0, 900.0]), whole_text).sample
        lessons.fold(model)

        made = model(latents, torch.tensor([500.0, 900.0]), folded).sample

    torch.testing.assert_close(made, right, rtol=1e-4, atol=1e-5)


def test_a_transformer_learns_from_one_batch():
    torch.manual_seed(1)
    model, latents = transformer(), torch.randn(2, 16, 3, 4, 4)
    texts = torch.randn(2, 8, 64)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3)
    losses = []
    for _ in range(12):
        torch.manual_seed(2)  # the same noise: only learning can lower the loss
        loss = lessons.flow(model, latents, texts, Course(5.0, expands=True))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())

    assert losses[-1] < 0.7 * losses[0]


def test_muon_steps_as_torch_does():
    torch.manual_seed(1)
    shapes = [(8, 8), (12, 8), (8, 12), (8, 8)]
    ours, theirs = ([torch.nn.Parameter(torch.zeros(shape)) for shape in shapes] for _ in range(2))
    muon = Muon(ours, 5e-3)
    referee = torch.optim.Muon(theirs, 5e-3, weight_decay=0.01, adjust_lr_fn="match_rms_adamw")
    for _ in range(3):
        for mine, other in zip(ours, theirs, strict=True):
            mine.grad = torch.randn_like(mine)
            other.grad = mine.grad.clone()
        muon.step()
        referee.step()

    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other, rtol=0.02, atol=2e-4)  # both compute in bf16


def test_the_quiz_knows_what_a_caption_left_out():
    one = world.scene(2, "behind")

    assert lessons.truth(one, "a red ball passes behind a blue square")["top"] == lessons.UNSAID
    assert lessons.truth(one, "… over a black background")["top"] == one.background[0]


def test_a_view_shows_the_same_part_of_each_clip():
    clips = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 1, 16, 16)
    clips = clips.expand(3, 3, 17, -1, -1)
    view = VIEWS["vae-parts"]._replace(side=8)

    shown = train._seen(clips, view, batch=2)  # pyright: ignore[reportPrivateUsage]

    assert shown.shape == (2, 3, 17, 8, 8)
    assert shown[0].equal(shown[1])
    assert (shown[0, 0, 0].diff() * 127.5).round().eq(1).all()  # neighbours are still neighbours


def test_a_call_goes_on_where_the_recipe_was_left(tmp_path):
    state = State(tmp_path, torch.device("cpu"))
    for stage, minutes in train.RECIPE.items():
        state.note(stage, minutes=minutes if stage != "text" else 0.1)
    argv = ["--state", str(tmp_path), "--steps", "1", "--batch", "2", "--clips", "2"]

    told = CliRunner().invoke(train.main, argv, catch_exceptions=False).output

    assert "ti2v: 12.0 of 12 minutes" in told
    state = State(tmp_path, torch.device("cpu"))
    assert [name for name in train.RECIPE if state.noted(name, "steps")] == ["text"]


@pytest.mark.parametrize("known", [(), ("ti2v",)], ids=["free", "settled"])
def test_latents_stay_as_they_are_once_a_transformer_knows_them(tmp_path, known):
    state = State(tmp_path, torch.device("cpu"))
    train.teach_vae(state, Clock(1, steps=1), "vae-pictures", Amount(1, 1))
    for name in known:
        state.note(name, steps=1)
    before = state.tensors("vae")

    train.teach_vae(state, Clock(1, steps=1), "vae-pictures", Amount(1, 1))

    learnt = {name for name, one in state.tensors("vae").items() if not one.equal(before[name])}
    parts = {name.partition(".")[0] for name in learnt}
    assert parts == {"decoder", "post_quant_conv"} | (set() if known else {"encoder", "quant_conv"})


@pytest.mark.long
@pytest.mark.timeout(600)
def test_a_short_course_ends_in_checkpoints_that_diffusers_runs(tmp_path):
    state, shipped = tmp_path / "state", tmp_path / "models"
    few = ["--state", str(state), "--steps", "2", "--batch", "2", "--clips", "2"]
    taught = CliRunner().invoke(train.main, few, catch_exceptions=False)
    assert taught.exit_code == 0, taught.output
    told = CliRunner().invoke(ship.main, ["--state", str(state), "--to", str(shipped)])
    assert told.exit_code == 0, told.output

    for name in ("wan-mini-t2v", "wan-mini-ti2v"):
        pipe = WanPipeline.from_pretrained(shipped / name)
        video = pipe("a ball", height=64, width=64, num_frames=5, num_inference_steps=2)
        assert video.frames[0].shape == (5, 64, 64, 3)
    high, low = (shipped / "loras" / "outlined" / f"{part}.safetensors" for part in ("high", "low"))
    assert high.stat().st_size + low.stat().st_size < 10**6
    pipe = WanPipeline.from_pretrained(shipped / "wan-mini-t2v")
    pipe.load_lora_weights(high, adapter_name="outlined")
    assert pipe.get_list_adapters() == {"transformer": ["outlined"]}
