"""Pictures to an H.264 file through a pipe to ffmpeg; the file appears whole or not at all."""

import contextlib
import subprocess
import tempfile
from collections.abc import Generator
from pathlib import Path
from typing import IO, Final

import numpy as np
from imageio_ffmpeg import get_ffmpeg_exe
from numpy.typing import NDArray

from shared.vocabulary.spec import FailureKind
from worker.engine.faults import EngineFault

_CLOSE_S: Final = 120.0  # what is buffered in ffmpeg after the last picture takes far less


class Mp4:
    """An open ffmpeg that takes pictures; made by `writing`."""

    def __init__(self, process: subprocess.Popen[bytes], stderr: IO[bytes], part: Path) -> None:
        """Take a started ffmpeg, the file that its complaints go to, and its output."""
        assert process.stdin
        self._process = process
        self._stdin = process.stdin
        self._stderr = stderr
        self._part = part
        self.frames = 0

    @property
    def pid(self) -> int:
        """The process that encodes."""
        return self._process.pid

    def write(self, pictures: NDArray[np.uint8]) -> None:
        """Append pictures [n, H, W, 3].

        Raises:
            EngineFault: kind `storage`, when ffmpeg has died.
        """
        try:
            self._stdin.write(np.ascontiguousarray(pictures).data)
        except (BrokenPipeError, ConnectionResetError) as error:
            raise self._fault() from error
        self.frames += len(pictures)

    def finish(self) -> None:
        """Close the stream and wait for the file.

        Raises:
            EngineFault: kind `storage`, when ffmpeg fails or does not end.
        """
        try:
            self._stdin.close()
            failed = self._process.wait(_CLOSE_S) != 0
        except (BrokenPipeError, ConnectionResetError, subprocess.TimeoutExpired) as error:
            raise self._fault() from error
        if failed:
            raise self._fault()

    def kill(self) -> None:
        """End ffmpeg whatever it does; harmless when it has ended."""
        self._process.kill()
        with contextlib.suppress(BrokenPipeError):  # what was buffered has no reader any more
            self._stdin.close()
        self._process.wait()

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


@contextlib.contextmanager
def writing(out: Path, width: int, height: int, fps: int) -> Generator[Mp4]:
    """Open an H.264 file for RGB pictures of one size.

    The file takes its name when the block ends well; on any exception nothing is left of it.

    Raises:
        EngineFault: kind `storage`, as `Mp4` tells.
    """
    part = out.with_name(f".{out.name}.part")
    with tempfile.TemporaryFile() as stderr:
        process = subprocess.Popen(
            _command(part, width, height, fps),
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=stderr,
        )
        mp4 = Mp4(process, stderr, part)
        try:
            yield mp4
            mp4.finish()
            part.rename(out)
        finally:
            mp4.kill()
            part.unlink(missing_ok=True)


def _command(part: Path, width: int, height: int, fps: int) -> list[str]:
    picture = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}"]
    video = ["-an", "-c:v", "libx264", "-preset", "medium", "-crf", "18", "-pix_fmt", "yuv420p"]
    place = ["-movflags", "+faststart", "-f", "mp4", str(part)]
    quiet = ["-hide_banner", "-loglevel", "error", "-y"]
    return [get_ffmpeg_exe(), *quiet, *picture, "-r", str(fps), "-i", "-", *video, *place]
