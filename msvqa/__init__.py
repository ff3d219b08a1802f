"""MSVQA: train, evaluate and ask models of video on Ray.

`from_pretrained(run).answer(video, question)` uses a finished run from Python.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from msvqa.predict import from_pretrained

__all__ = ["__version__", "from_pretrained"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    # Imported when used: `import msvqa` must stay fast and free of torch.
    if name == "from_pretrained":
        from msvqa.predict import from_pretrained

        return from_pretrained
    raise AttributeError(f"module 'msvqa' has no attribute {name!r}")
