"""Every error a person can meet: its stable code, what HTTP says, and whether to try again."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Literal

from shared.vocabulary.spec import FailureKind


@dataclass(frozen=True, slots=True)
class Code:
    """What a public error code means on the wire."""

    status: int
    type: str
    retryable: bool = False


def _codes(status: int, kind: str, names: str, *, retryable: bool = False) -> dict[str, Code]:
    return {name: Code(status, kind, retryable) for name in names.split()}


_REQUEST: Final = "invalid_request_error"
CODES: Final = MappingProxyType(
    _codes(
        400,
        _REQUEST,
        "invalid_json invalid_form invalid_header ambiguous_form duplicate_field unknown_field "
        "missing_field invalid_value invalid_cache_policy conflicting_fields not_for_model "
        "image_required image_not_allowed invalid_image invalid_lora url_fetch_disabled "
        "lora_mismatch use_batches unsupported_feature invalid_cursor",
    )
    | _codes(401, "authentication_error", "missing_key invalid_key")
    | _codes(403, "permission_error", "scope_missing priority_not_allowed csrf_failed link_invalid")
    | _codes(
        404,
        "not_found_error",
        "not_found video_not_found model_not_found lora_not_found group_not_found key_not_found "
        "webhook_not_found file_not_found batch_not_found",
    )
    | _codes(
        409,
        "conflict_error",
        "video_not_ready not_cancellable not_queued lora_exists lora_in_use sheet_not_ready",
    )
    | _codes(410, "not_found_error", "content_gone")
    | _codes(405, _REQUEST, "method_not_allowed")
    | _codes(413, _REQUEST, "body_too_large image_too_large lora_too_large")
    | _codes(415, _REQUEST, "unsupported_media_type")
    | _codes(416, _REQUEST, "range_not_satisfiable")
    | _codes(422, _REQUEST, "idempotency_key_reused does_not_fit search_too_wide")
    | _codes(429, "rate_limit_error", "queue_full rate_limited stream_limit", retryable=True)
    | _codes(429, "rate_limit_error", "quota_exceeded")
    | _codes(500, "server_error", "internal_error", retryable=True)
    | _codes(
        503,
        "server_error",
        "not_ready intake_paused database_unavailable storage_full too_many_streams",
        retryable=True,
    )
)


class WanfarmError(Exception):
    """Base of all errors with a public code; the message says what, why and what to do.

    Args:
        code: a key of `CODES`.
        message: at most three short sentences, values quoted, no paths, hosts or traces.
        param: the field at fault, as the client wrote it.
        retry_after_s: seconds until another try makes sense.
    """

    def __init__(
        self, code: str, message: str, *, param: str | None = None, retry_after_s: int | None = None
    ) -> None:
        """Check that the code is a public one."""
        super().__init__(message)
        assert code in CODES, code
        self.code = code
        self.message = message
        self.param = param
        self.retry_after_s = retry_after_s


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing wrong with one field."""

    param: str
    code: str
    message: str


class RequestRejected(WanfarmError):
    """A request with one or more faulty fields; the first one heads the answer."""

    def __init__(self, faults: list[Fault]) -> None:
        """Take the faults in the order in which they are told."""
        first = faults[0]
        super().__init__(first.code, first.message, param=first.param)
        self.faults = faults


class StaleAttempt(Exception):
    """Another attempt, or nobody, holds the row now; whatever this one brings is dropped."""


@dataclass(frozen=True, slots=True)
class JobFailure:
    """Why an attempt ended badly, as the engine or the parent saw it."""

    kind: FailureKind
    message: str

    @property
    def code(self) -> str:
        """The public code of the kind."""
        return JOB_CODES[self.kind]


JobCode = Literal[
    "invalid_input", "model_load_failed", "lora_mismatch", "does_not_fit", "out_of_memory",
    "engine_crashed", "engine_hung", "bad_output", "storage_error", "timeout", "deadline_missed",
    "worker_lost", "internal_error", "cancelled",
]  # fmt: skip
JOB_CODES: Final[Mapping[FailureKind, JobCode]] = MappingProxyType(
    {
        FailureKind.BAD_INPUT: "invalid_input",
        FailureKind.BAD_CHECKPOINT: "model_load_failed",
        FailureKind.BAD_LORA: "lora_mismatch",
        FailureKind.DOES_NOT_FIT: "does_not_fit",
        FailureKind.OUT_OF_MEMORY: "out_of_memory",
        FailureKind.CUDA_ERROR: "engine_crashed",
        FailureKind.COLLECTIVE: "engine_crashed",
        FailureKind.RANK_DIED: "engine_crashed",
        FailureKind.HANG: "engine_hung",
        FailureKind.NON_FINITE: "bad_output",
        FailureKind.STORAGE: "storage_error",
        FailureKind.TIMEOUT: "timeout",
        FailureKind.DEADLINE: "deadline_missed",
        FailureKind.LOST: "worker_lost",
        FailureKind.INTERNAL: "internal_error",
    }
)
