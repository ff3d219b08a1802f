"""Encoders of text, with weights from folders of the user."""
