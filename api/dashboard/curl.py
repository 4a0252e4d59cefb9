"""A request as a command that can be pasted into a shell."""

import json
from shlex import quote

from shared.jobs.ledger import Values


def command(base_url: str, path: str, body: Values, *, image: str | None = None) -> str:
    """Phrase a POST by curl: as JSON, or as a form with the file of an image."""
    head = f'curl -sS {base_url}{path} \\\n  -H "Authorization: Bearer $WANFARM_API_KEY"'
    if image is None:
        text = quote(json.dumps(body, ensure_ascii=False))
        return f"{head} \\\n  -H 'Content-Type: application/json' \\\n  -d {text}"
    texts = {n: v if isinstance(v, str) else json.dumps(v) for n, v in body.items()}
    fields = [f"-F {quote(f'{name}={text}')}" for name, text in texts.items()]
    return " \\\n  ".join([head, *fields, f"-F input_reference=@{image}"])
