"""The ways that ours are compared with: what programs of this kind do, as briefly as can be.

Nothing of the package uses them. They are as fast as their way allows, not slowed down.
"""
