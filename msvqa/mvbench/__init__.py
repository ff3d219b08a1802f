"""MVBench: twenty tasks of multiple-choice questions about videos, asked, matched and counted.

Li et al., "MVBench: A comprehensive multi-modal video understanding benchmark", CVPR 2024
(https://arxiv.org/abs/2311.17005). Everything but `run` works without any model.
"""
