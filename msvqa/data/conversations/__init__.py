"""Conversations about a medium: how they are written, tokenised, cut and marked as targets."""

FORMS: dict[str, str] = {
    "vicuna": "msvqa.data.conversations.forms:Vicuna",
    "mistral": "msvqa.data.conversations.forms:Mistral",
    "chat_template": "msvqa.data.conversations.chat_template:ChatTemplate",
}
