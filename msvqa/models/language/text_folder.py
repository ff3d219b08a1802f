"""Folders of language models as they are published: a description, and weights beside it."""

import json
import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from msvqa.errors import WeightsError
from msvqa.models.weight_files import read_weights
from msvqa.models.weights import load_strictly

logger = logging.getLogger(__name__)

WEIGHTS = ("model.safetensors", "pytorch_model.bin")
"""The same weights in two formats; the first that is there is read."""
MAX_CONFIG_BYTES = 1_000_000
COMPARED = (
    *("model_type", "vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads"),
    *("intermediate_size", "hidden_act", "max_position_embeddings", "type_vocab_size"),
    *("embedding_size", "rotary_value"),
)
"""Entries of `config.json` that say what the weights compute; an absent one is as by default."""
HEADS = ("cls.", "pooler.")
"""Beginnings of what is above the layers: heads of the pre-training, and BERT's summary where the
model takes none."""
MADE = ("embeddings.position_ids", "encoder.embed_positions.weight")
"""What is computed and not learned, and is in some files and not in others."""
OLD_NAMES = ((re.compile(r"\.gamma$"), ".weight"), (re.compile(r"\.beta$"), ".bias"))


def weights_in(folder: str | None) -> list[str]:
    """Return the file of weights that a folder holds, or nothing."""
    if folder is None:
        return []
    there = [path for name in WEIGHTS if (path := Path(folder, name)).is_file()]
    return [str(path) for path in there[:1]]


def load_text_folder(network: Any, folder: str | None) -> None:
    """Load the weights of a folder into a model of `transformers`, or say that it starts random.

    Raises:
        WeightsError: no such folder; it is of another model, or of other sizes: lists all.
    """
    if folder is None:
        logger.warning("model.text: no source is given, so the text encoder starts with chance")
        return
    check_description(network.config, Path(folder))
    files = weights_in(folder)
    if not files:
        logger.warning(
            "model.text: %s holds no weights (%s), so the text encoder starts with chance",
            folder, " or ".join(WEIGHTS),
        )  # fmt: skip
        return
    state = _of_network(network, read_weights(files[0]))
    ignored = HEADS if network.config.model_type != "bert" or network.pooler is None else HEADS[:1]
    load_strictly(network, state, files[0], ignored)


def _of_network(network: Any, given: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return weights under the names of the model alone, without those of a whole around it."""
    prefix = f"{network.base_model_prefix}."
    state: dict[str, Tensor] = {}
    for name, value in given.items():
        state[with_new_name(name.removeprefix(prefix))] = value
    own = network.state_dict()
    made = {name: own[name] for name in MADE if name in own}
    return {name: value for name, value in state.items() if name not in MADE} | made


def with_new_name(name: str) -> str:
    """Return the name that a weight of the first published files has today."""
    for old, new in OLD_NAMES:
        name = old.sub(new, name)
    return name


def check_description(own: Any, folder: Path) -> None:
    """Refuse a folder of another model.

    Args:
        own: what the weights must fit, a description of `transformers`.
        folder: has the `config.json` of the weights.

    Raises:
        WeightsError: it describes another model, and lists what differs; or there is none.
    """
    file = folder / "config.json"
    try:
        if file.stat().st_size > MAX_CONFIG_BYTES:
            raise WeightsError(f"{file} is too large for the description of a model")
        found = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise WeightsError(
            f"{file} cannot be read: {error.strerror}; model.text.source names a folder as it is "
            "published, with config.json"
        ) from None
    except ValueError:
        raise WeightsError(f"{file} is no JSON") from None
    if not isinstance(found, dict):
        raise WeightsError(f"{file} does not describe a model")
    # What a description leaves out is as the class has it by default.
    usual = type(own)().to_dict()
    usual["embedding_size"] = found.get("hidden_size", usual["hidden_size"])
    differing = [
        f"{name} {found.get(name, usual.get(name))!r} instead of {getattr(own, name)!r}"
        for name in COMPARED
        if hasattr(own, name) and found.get(name, usual.get(name)) != getattr(own, name)
    ]
    if differing:
        raise WeightsError(
            f"{file} is of another model than model.text says: {'; '.join(differing)}"
        )
