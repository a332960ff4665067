"""The request that creates a fine-tuning job, as pydantic checks it."""

from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StrictFloat,
    StrictInt,
    model_validator,
)


def _encodable(text: str) -> str:
    text.encode()  # Half a pair of \\ud800... is no text.
    return text


Text = Annotated[str, AfterValidator(_encodable)]
Auto = Literal["auto"]
Positive = Annotated[StrictFloat | StrictInt, Field(gt=0, le=1e6, allow_inf_nan=False)]
_MOST_PAIRS = 16


class _Part(BaseModel):
    # A name that is not known is refused, not passed over.
    model_config = ConfigDict(extra="forbid")


class Hyperparameters(_Part):
    """Of a supervised training."""

    n_epochs: Auto | Annotated[StrictInt, Field(ge=1, le=50)] = "auto"
    batch_size: Auto | Annotated[StrictInt, Field(ge=1, le=256)] = "auto"
    learning_rate_multiplier: Auto | Positive = "auto"


class DpoHyperparameters(_Part):
    """Of a training on preferences."""

    n_epochs: Auto | Annotated[StrictInt, Field(ge=1, le=50)] = "auto"
    batch_size: Auto | Annotated[StrictInt, Field(ge=1, le=256)] = "auto"
    learning_rate_multiplier: Auto | Positive = "auto"
    beta: Auto | Annotated[StrictFloat | StrictInt, Field(gt=0, le=2)] = "auto"


class Supervised(_Part):
    """The method that learns answers."""

    hyperparameters: Hyperparameters = Hyperparameters()


class Dpo(_Part):
    """The method that learns preferences."""

    hyperparameters: DpoHyperparameters = DpoHyperparameters()


class Method(_Part):
    """How the model learns."""

    type: Literal["supervised", "dpo"]
    supervised: Supervised | None = None
    dpo: Dpo | None = None

    @model_validator(mode="after")
    def _check(self) -> "Method":
        other = "dpo" if self.type == "supervised" else "supervised"
        if getattr(self, other) is not None:
            raise ValueError(f"type is {self.type}, so {other} must be left out")
        return self


class Integration(BaseModel):
    """Something that would be told of the job; ignored."""

    type: Annotated[Text, Field(max_length=64)]


class CreateJob(_Part):
    """A new fine-tuning job."""

    model: Text
    training_file: Text
    validation_file: Text | None = None
    suffix: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,64}$")] | None = None
    seed: Annotated[StrictInt, Field(ge=0, lt=2**31)] | None = None
    method: Method | None = None
    hyperparameters: Hyperparameters | None = None
    integrations: Annotated[list[Integration], Field(max_length=16)] | None = None
    metadata: (
        Annotated[
            dict[
                Annotated[Text, Field(min_length=1, max_length=64)],
                Annotated[Text, Field(max_length=512)],
            ],
            Field(max_length=_MOST_PAIRS),
        ]
        | None
    ) = None

    @model_validator(mode="after")
    def _check(self) -> "CreateJob":
        if self.method and self.hyperparameters:
            raise ValueError("give hyperparameters within method, or without it the deprecated way")
        return self

    @property
    def method_type(self) -> Literal["supervised", "dpo"]:
        """The method's name."""
        return self.method.type if self.method else "supervised"

    @property
    def numbers(self) -> dict[str, Any]:
        """The hyperparameters; `auto` where none are given."""
        if self.method is None:
            return (self.hyperparameters or Hyperparameters()).model_dump()
        part: Supervised | Dpo | None = getattr(self.method, self.method.type)
        default = Dpo() if self.method.type == "dpo" else Supervised()
        return (part or default).hyperparameters.model_dump()
