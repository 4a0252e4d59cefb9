"""Our VAE decoder: diffusers' pictures from whole frames, from strips on many ranks, from tiles."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan, unpatchify

from shared.vocabulary.plan import Build, ParallelPlan, Residency
from shared.vocabulary.spec import FailureKind
from tests.engine.ranks import side_by_side
from tests.engine.rendering import decoded, small
from worker.engine.contract import Seat
from worker.engine.faults import EngineFault
from worker.engine.model import loading
from worker.engine.parallel.ranks import Ranks
from worker.engine.parallel.strips import Strips
from worker.engine.video import decode
from worker.engine.video.conditioning import statistics
from worker.engine.video.fused import pictures
from worker.engine.video.vae import Decoder

KINDS = {"vae-2.1": "wan-tiny-t2v", "vae-2.2": "wan-tiny-ti2v"}
PLANS = {2: ParallelPlan(ranks=3, cfg=2), 3: ParallelPlan(ranks=3, ulysses=3)}
CLOSE = {"rtol": 1e-5, "atol": 1e-5}  # of values in -1..1


def vae_of(models: Path, kind: str) -> AutoencoderKLWan:
    return AutoencoderKLWan.from_pretrained(models / KINDS[kind] / "vae").eval()


def noise(vae, frames: int, height: int = 5, width: int = 3) -> torch.Tensor:
    generator = torch.Generator().manual_seed(frames)
    shape = (1, vae.config.z_dim, frames, height, width)
    return torch.randn(shape, generator=generator)


@torch.no_grad()
def theirs(vae, latents) -> torch.Tensor:
    """The whole decode of diffusers, [1, 3, F, H, W]."""
    mean, inverse = statistics(vae, latents)
    return vae.decode(latents / inverse + mean).sample


@torch.no_grad()
def ours(vae, latents, strips, at_once: int = 1) -> torch.Tensor:
    """What this rank's decoder makes, before it becomes bytes; [n, h, W, C]."""
    mean, inverse = statistics(vae, latents)
    hidden = vae.post_quant_conv(latents / inverse + mean)
    decoder = Decoder(vae, strips)
    later = hidden[:, :, 1:].split(at_once, dim=2) if hidden.shape[2] > 1 else ()
    made = [decoder.frames(hidden[:, :, :1], first=True)]
    return torch.cat(made + [decoder.frames(frames, first=False) for frames in later])


@pytest.mark.parametrize("latent_frames", [1, 2, 3, 4])
@pytest.mark.parametrize("kind", KINDS)
def test_it_makes_the_pictures_of_diffusers(models, kind, latent_frames):
    vae = vae_of(models, kind)
    latents = noise(vae, latent_frames)
    whole = theirs(vae, latents)

    made = ours(vae, latents, Strips(None, latents.shape[3]))

    made = unpatchify(made.permute(3, 0, 1, 2)[None], vae.config.patch_size or 1)
    torch.testing.assert_close(made.clamp(-1, 1), whole, **CLOSE)


@pytest.mark.parametrize("kind", KINDS)
def test_diffusers_own_decoder_works_on_after_ours(models, kind):
    vae, untouched = vae_of(models, kind), vae_of(models, kind)
    latents = noise(vae, 2)

    ours(vae, latents, Strips(None, latents.shape[3]))

    torch.testing.assert_close(theirs(vae, latents), theirs(untouched, latents), **CLOSE)


def test_the_frames_of_several_latent_frames_may_be_made_at_once(models):
    vae = vae_of(models, "vae-2.2")
    latents = noise(vae, 5)
    strips = Strips(None, latents.shape[3])

    together = ours(vae, latents, strips, at_once=2)

    torch.testing.assert_close(together, ours(vae, latents, strips), **CLOSE)


def share(rank: int, scratch: Path, models: Path) -> None:
    """One of three ranks that decode together, by twos and threes; a process of its own."""
    ranks = Ranks(Seat(rank, 3, scratch / "rendezvous", "cpu", threads=1))
    for kind in KINDS:
        vae = vae_of(models, kind)
        latents = noise(vae, 2)
        for active, plan in PLANS.items():
            mesh = ranks.mesh(plan)
            if rank < active:
                strips = mesh.strips(latents.shape[3])
                whole = strips.collected(ours(vae, latents, strips))
                streamed = np.concatenate(list(decode.frames(vae, latents, strips)))
                if rank == 0:
                    made = (whole, torch.from_numpy(streamed))
                    torch.save(made, scratch / f"{kind}-{active}.pt")
    ranks.leave()


@pytest.fixture(scope="module")
def shared(models, tmp_path_factory) -> Path:
    """A folder with what ranks have decoded together."""
    scratch = tmp_path_factory.mktemp("shared")
    side_by_side(share, [(rank, scratch, models) for rank in range(3)])
    return scratch


@pytest.mark.parametrize("active", PLANS)
@pytest.mark.parametrize("kind", KINDS)
def test_strips_of_uneven_height_join_without_a_seam(models, shared, kind, active):
    vae = vae_of(models, kind)
    latents = noise(vae, 2)
    strips = Strips(None, latents.shape[3])

    whole, streamed = torch.load(shared / f"{kind}-{active}.pt")

    torch.testing.assert_close(whole, ours(vae, latents, strips), **CLOSE)
    patch = vae.config.patch_size or 1
    assert streamed.equal(pictures(whole, patch))


@pytest.mark.parametrize("own", [True, False], ids=["ours", "diffusers"])
def test_tiles_fade_into_each_other(models, own):
    vae = vae_of(models, "vae-2.1")
    latents = noise(vae, 2, height=20, width=4)
    strips = Strips(None, 20) if own else None
    whole = np.concatenate(list(decode.frames(vae, latents, strips))).astype(int)

    chunks = list(decode.frames(vae, latents, strips, tiled=True))

    tiled = chunks[-1].astype(int)
    assert [len(chunk) for chunk in chunks] == [0] * 4 + [5]  # two tiles of two latent frames
    assert tiled.shape == whole.shape
    assert np.abs(tiled - whole).mean() < 0.25 * whole.std()
    assert steps(tiled) <= steps(whole)


def steps(pictures: np.ndarray) -> float:
    """The largest change from one row to the next, as a seam would make it."""
    return np.abs(np.diff(pictures, axis=1)).mean((0, 2, 3)).max()


def test_a_plan_with_tiles_says_that_the_pictures_are_not_exact(render):
    tiles = ParallelPlan(ranks=1, residency=Residency(tiled_vae=True))

    file, report = render(small(), plan=tiles)

    assert [warning for warning in report.warnings if "tiles" in warning]
    assert len(decoded(Path(file.path), 64, 64)) == 9
    assert render(small())[1].warnings == []


@pytest.fixture
def other(models, tmp_path) -> Path:
    """A VAE to put in the place of the text-to-video miniature's."""
    folder = tmp_path / "other"
    shutil.copytree(models / "wan-tiny-t2v" / "vae", folder)
    return folder


def load_with(vae: Path, models: Path) -> AutoencoderKLWan:
    build, device = Build(vae=str(vae)), torch.device("cpu")
    return loading.load(models / "wan-tiny-t2v", device, build, with_text=False).vae


def test_another_vae_takes_the_place_of_the_checkpoints(models, other):
    bias = torch.tensor([1.0, 2.0, 3.0])
    vae = AutoencoderKLWan.from_pretrained(other)
    vae.decoder.conv_out.bias.data = bias
    vae.save_pretrained(other)

    assert load_with(other, models).decoder.conv_out.bias.equal(bias)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"z_dim": 48}, "z_dim 48, not 16"),
        ({"scale_factor_spatial": 16}, "scale_factor_spatial 16, not 8"),
        ({"scale_factor_temporal": 8}, "scale_factor_temporal 8, not 4"),
        ({"_class_name": "AutoencoderKL"}, "class_name AutoencoderKL, not AutoencoderKLWan"),
        ({"latents_mean": [0.0]}, "1 values of latents_mean, not 16"),
        ({"latents_std": None}, "0 values of latents_std, not 16"),
        (None, "no readable config.json"),
    ],
    ids=["channels", "size", "frames", "class", "mean", "deviation", "no-config"],
)
def test_a_vae_of_other_latents_is_refused_by_what_differs(models, other, change, told):
    config = other / "config.json"
    given = json.loads(config.read_text())
    config.write_text("" if change is None else json.dumps(given | change))

    with pytest.raises(EngineFault, match=told) as fault:
        load_with(other, models)

    assert fault.value.kind is FailureKind.BAD_CHECKPOINT
