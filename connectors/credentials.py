"""Reading what an operator gave as an account's credentials. Each connector has a model of its own; what does not fit it is
Misconfigured, naming the field and never its value."""

from collections.abc import Mapping
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from schemas.errors import Misconfigured


class Credentials(BaseModel):
    """Base of the models. Secrets are SecretStr, so that no representation shows them."""

    model_config = ConfigDict(frozen=True, extra="forbid")


Model = TypeVar("Model", bound=Credentials)


def parse(model: type[Model], provider: str, given: Mapping[str, str]) -> Model:
    try:
        return model.model_validate(dict(given))
    except ValidationError as error:
        wrong = "; ".join(
            f"{'.'.join(str(part) for part in item['loc']) or 'all of them'}: {item['msg']}"
            for item in error.errors(include_url=False, include_input=False, include_context=False)
        )
        known = ", ".join(model.model_fields)
        raise Misconfigured(f"The credentials for {provider} cannot be used: {wrong}. The fields are {known}.") from None
