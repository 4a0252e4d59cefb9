"""Stored files as answers: sent by us, or fetched from where they are."""

from dataclasses import replace

from flask import Response, request, send_file

from api.plumbing.runtime import farm
from shared.machinery.storage import Served


def send_stored(key: str, sha256: str, served: Served) -> Response:
    """Answer with a stored file; who has it already, by its hash, gets none."""
    served = replace(served, headers_only=request.method == "HEAD")
    where = farm().storage.locate(key, served)
    if isinstance(where, str):
        answer = Response(status=302)
        answer.set_etag(sha256)
        answer.headers["Cache-Control"] = "no-store"  # the address ends sooner than a cache
        answer.make_conditional(request)
        if answer.status_code == 302:
            answer.location = where
        return answer
    answer = send_file(
        where,
        mimetype=served.media_type,
        etag=sha256,
        conditional=True,
        as_attachment=served.attached,
        download_name=served.name,
    )
    answer.headers["Cache-Control"] = "private, max-age=31536000, immutable"
    return answer
