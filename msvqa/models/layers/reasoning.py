"""Question-guided reasoning over appearance and motion: the units of DualVGR, section III-D."""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from msvqa.models.layers.graph import GraphAttention, ViewAttention
from msvqa.models.layers.question import QuestionAttention, QuestionPunishment

# Legend: Q questions, C clips, D hidden size, L words, W word width.


@dataclass
class Reasoning:
    """Clips after the last unit, and the graph outputs of every step; all (Q, C, D)."""

    appearance: Tensor
    motion: Tensor
    common_appearance: list[Tensor] = field(default_factory=list)
    common_motion: list[Tensor] = field(default_factory=list)
    specific_appearance: list[Tensor] = field(default_factory=list)
    specific_motion: list[Tensor] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class ReasoningSizes:
    """What the units are built for."""

    hidden_size: int
    word_size: int
    heads: int
    units: int
    layers: int
    """Graph steps of one unit."""
    dropout: float
    self_loops: bool
    padded_length: int
    reference_layers: bool
    """Choose and feed the graphs of several steps as the reference does."""


class GraphReasoning(nn.Module):
    """Units in a row: the question scores clips, four graphs run, their mixture is added.

    With `reference_layers` step j of unit i runs the graphs with index i + j, so that units share
    graphs and some never run, and both graphs of a modality read the specific output of the step
    before. Otherwise every step has graphs of its own (index i * layers + j) and each graph reads
    its own output.
    """

    def __init__(self, sizes: ReasoningSizes) -> None:
        super().__init__()
        self.sizes = sizes
        width, words = sizes.hidden_size, sizes.word_size

        def each_unit(build: Callable[[], nn.Module]) -> nn.ModuleList:
            return nn.ModuleList(build() for _ in range(sizes.units))

        def graphs() -> nn.ModuleList:
            return nn.ModuleList(
                GraphAttention(width, sizes.heads, sizes.dropout, sizes.self_loops)
                for _ in range(sizes.units * sizes.layers)
            )

        self.question_attention = each_unit(lambda: QuestionAttention(width, sizes.padded_length))
        self.punish_appearance = each_unit(lambda: QuestionPunishment(words, width))
        self.punish_motion = each_unit(lambda: QuestionPunishment(words, width))
        self.specific_appearance, self.common_appearance = graphs(), graphs()
        self.specific_motion, self.common_motion = graphs(), graphs()
        self.view_appearance = each_unit(lambda: ViewAttention(width))
        self.view_motion = each_unit(lambda: ViewAttention(width))

    def forward(
        self, appearance: Tensor, motion: Tensor, words: Tensor, contextual: Tensor, length: Tensor
    ) -> Reasoning:
        """Return the clips (Q, C, D) after all units."""
        state = Reasoning(appearance, motion)
        for unit in range(self.sizes.units):
            query, _ = self.question_attention[unit](words, contextual, length)  # (Q, W)
            scores_a = self.punish_appearance[unit](query, state.appearance)  # (Q, C)
            scores_m = self.punish_motion[unit](query, state.motion)
            self._run_graphs(unit, state, scores_a, scores_m)
            views_a = torch.stack([state.common_appearance[-1], state.specific_appearance[-1]], 1)
            views_m = torch.stack([state.common_motion[-1], state.specific_motion[-1]], 1)
            state.appearance = state.appearance + self.view_appearance[unit](views_a)[0]
            state.motion = state.motion + self.view_motion[unit](views_m)[0]
        return state

    def unused(self) -> list[nn.Module]:
        """Return the graphs that never run; there are some only with `reference_layers`."""
        sizes = self.sizes
        used = {self._index(u, j) for u in range(sizes.units) for j in range(sizes.layers)}
        graphs = (
            self.specific_appearance,
            self.common_appearance,
            self.specific_motion,
            self.common_motion,
        )
        return [graph for of in graphs for n, graph in enumerate(of) if n not in used]

    def _run_graphs(self, unit: int, state: Reasoning, scores_a: Tensor, scores_m: Tensor) -> None:
        specific_a = common_a = state.appearance
        specific_m = common_m = state.motion
        for step in range(self.sizes.layers):
            index = self._index(unit, step)
            if self.sizes.reference_layers:
                common_a, common_m = specific_a, specific_m
            common_a, _ = self.common_appearance[index](common_a, scores_a)
            common_m, _ = self.common_motion[index](common_m, scores_m)
            specific_a, _ = self.specific_appearance[index](specific_a, scores_a)
            specific_m, _ = self.specific_motion[index](specific_m, scores_m)
            state.common_appearance.append(common_a)
            state.common_motion.append(common_m)
            state.specific_appearance.append(specific_a)
            state.specific_motion.append(specific_m)

    def _index(self, unit: int, step: int) -> int:
        return unit + step if self.sizes.reference_layers else unit * self.sizes.layers + step
