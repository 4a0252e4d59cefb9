"""File parts of a form."""

from typing import Annotated, Final

from pydantic import InstanceOf, WithJsonSchema

_SCHEMA: Final = WithJsonSchema({"type": "string", "contentMediaType": "application/octet-stream"})
InMemory = Annotated[InstanceOf[bytes], _SCHEMA]
MULTIPART: Final = ("multipart/form-data",)
