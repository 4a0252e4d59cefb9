"""Pictures to an H.264 file and stills of it, through a pipe to ffmpeg; whole or not at all."""

import contextlib
import queue
import subprocess
import tempfile
import threading
from collections.abc import Generator
from pathlib import Path
from typing import IO, Final

import numpy as np
from imageio_ffmpeg import get_ffmpeg_exe
from numpy.typing import NDArray

from shared.vocabulary.spec import FailureKind, GenerationSpec
from worker.engine.faults import EngineFault

_CLOSE_S: Final = 120.0  # what is buffered in ffmpeg after the last picture takes far less
_AHEAD: Final = 4  # latent frames that wait for ffmpeg
_PRESET: Final = "faster"  # half of medium's work, so that encoding ends with decoding
# Pictures that x264 holds back are what is left to do when the last one comes: its own choice on 32
# cores is 48 threads and 20 pictures ahead. And the bytes depend on both, so no machine chooses.
_THREADS: Final = "16"
_LOOKAHEAD: Final = "rc-lookahead=10"
_THUMBNAIL_WIDTH: Final = 480
_SHEET: Final = 4  # pictures a side
_SHEET_WIDTH: Final = 160  # of one picture


class Mp4:
    """An open ffmpeg that takes pictures; made by `writing`."""

    def __init__(self, process: subprocess.Popen[bytes], stderr: IO[bytes], part: Path) -> None:
        """Take a started ffmpeg, the file that its complaints go to, and its output."""
        assert process.stdin
        self._process = process
        self._stdin = process.stdin
        self._stderr = stderr
        self._part = part
        self._waiting: queue.Queue[NDArray[np.uint8] | None] = queue.Queue(_AHEAD)
        self._feeding = threading.Thread(target=self._feed, daemon=True)
        self._feeding.start()
        self.frames = 0
        self.broken = False  # set when ffmpeg takes no more pictures; `finish` tells why

    @property
    def pid(self) -> int:
        """The process that encodes."""
        return self._process.pid

    def write(self, pictures: NDArray[np.uint8]) -> None:
        """Append pictures [n, H, W, 3]; they are encoded beside what the caller does next.

        It waits while there are many on their way, and never fails: see `broken`.
        """
        try:
            self._waiting.put(np.ascontiguousarray(pictures), timeout=_CLOSE_S)
        except queue.Full:
            self.broken = True
        self.frames += len(pictures)

    def finish(self) -> None:
        """Close the stream and wait for the file.

        Raises:
            EngineFault: kind `storage`, when ffmpeg fails or does not end.
        """
        try:
            self._waiting.put(None, timeout=_CLOSE_S)
            self._feeding.join(_CLOSE_S)
            self._stdin.close()
            failed = self._process.wait(_CLOSE_S) != 0
        except (OSError, queue.Full, subprocess.TimeoutExpired) as error:
            raise self._fault() from error
        if failed or self.broken:
            raise self._fault()

    def kill(self) -> None:
        """End ffmpeg whatever it does; harmless when it has ended."""
        self._process.kill()
        if self._feeding.is_alive():
            self._waiting.put(None)  # without a reader the pipe breaks, so there will be room
            self._feeding.join()
        with contextlib.suppress(BrokenPipeError):  # what was buffered has no reader any more
            self._stdin.close()
        self._process.wait()

    def _feed(self) -> None:
        """Hand pictures to ffmpeg until there are no more; runs in a thread of its own."""
        while (pictures := self._waiting.get()) is not None:
            if not self.broken:
                try:
                    self._stdin.write(pictures.data)
                except (BrokenPipeError, ConnectionResetError):
                    self.broken = True

    def _fault(self) -> EngineFault:
        """Tell ffmpeg's last words, without the path in them."""
        self._process.kill()
        self._process.wait()
        self._stderr.seek(0)
        lines = self._stderr.read().decode(errors="replace").strip().splitlines()
        words = lines[-1].replace(str(self._part), "the file")[:160] if lines else "It said nothing"
        return EngineFault(
            FailureKind.STORAGE, f"The video could not be written. ffmpeg ended: {words}"
        )


def stills(out: Path) -> dict[str, Path]:
    """Tell where the stills of a video lie: its middle frame, and a sheet of its frames."""
    return {"thumbnail": out.with_suffix(".webp"), "spritesheet": out.with_suffix(".jpg")}


@contextlib.contextmanager
def writing(out: Path, spec: GenerationSpec) -> Generator[Mp4]:
    """Open an H.264 file for the RGB pictures of a spec, and its stills.

    The file takes its name when the block ends well; on any exception nothing is left of it. What
    the block does is beside the encoding: it ends when all pictures are in the file.

    Args:
        out: the file.
        spec: says how many pictures there are, of what size and pace, and what the file tells.

    Raises:
        EngineFault: kind `storage`, as `Mp4` tells.
    """
    part = out.with_name(f".{out.name}.part")
    with tempfile.TemporaryFile() as stderr:
        process = subprocess.Popen(
            _command(part, stills(out), spec),
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=stderr,
        )
        mp4 = Mp4(process, stderr, part)
        try:
            yield mp4
            mp4.finish()
            part.rename(out)
        except BaseException:
            mp4.kill()
            for path in (part, *stills(out).values()):
                path.unlink(missing_ok=True)
            raise


def _command(part: Path, stills: dict[str, Path], spec: GenerationSpec) -> list[str]:
    size = f"{spec.width}x{spec.height}"
    quiet = ["-hide_banner", "-loglevel", "error", "-y"]
    pictures = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", size, "-r", str(spec.fps), "-i", "-"]
    codec = ["-an", "-c:v", "libx264", "-preset", _PRESET, "-crf", "18", "-pix_fmt", "yuv420p"]
    pace = ["-threads", _THREADS, "-x264-params", _LOOKAHEAD]
    told = ["-metadata", f"comment={spec.comment}"] if spec.comment else []
    video = ["-map", "[all]", *codec, *pace, *told, "-movflags", "+faststart", "-f", "mp4"]
    one = ["-frames:v", "1"]
    thumbnail = ["-map", "[middle]", *one, "-c:v", "libwebp", "-quality", "80"]
    sheet = ["-map", "[sheet]", *one, "-c:v", "mjpeg", "-q:v", "3"]
    small, many = str(stills["thumbnail"]), str(stills["spritesheet"])
    outputs = [*video, str(part), *thumbnail, small, *sheet, many]
    return [get_ffmpeg_exe(), *quiet, *pictures, "-filter_complex", _graph(spec.frames), *outputs]


def _graph(frames: int) -> str:
    """Say what is taken out of the stream of pictures for the stills."""
    every = max(1, frames // _SHEET**2)
    return (
        "[0:v]split=3[all][a][b];"
        f"[a]select=eq(n\\,{frames // 2}),scale=min({_THUMBNAIL_WIDTH}\\,iw):-2[middle];"
        f"[b]select=not(mod(n\\,{every})),scale={_SHEET_WIDTH}:-2,tile={_SHEET}x{_SHEET}[sheet]"
    )
