"""Signs of a foreign prompt in what a model wrote: those that the stages count, in
harness/answer/hygiene.py, and for other people's outputs those of further layouts and languages."""

import re

from harness.answer.hygiene import begins_with_role, has_extra_turns

_FOREIGN = (
    "助手|助理|用户|使用者|人类|系统|アシスタント|ユーザー|어시스턴트|사용자|ассистент|помощник|"
    "пользователь|asistente|assistente|assistent|utilisateur|usuario|usuário|benutzer|nutzer"
)
"""Assistant, user, human, system."""
_COLON = r"[\]\)*_]*[ \t]*[:\uff1a]"
_TURN = r"<(?:start|end)_of_turn>|<bos>|<eos>"
"""Gemma's tokens written out."""
_OPENCHAT = r"GPT-?[34](?:\.5)?[ \t]+(?:Correct[ \t]+)?(?:Assistant|User)[ \t]*[:\uff1a]"
_FIRST = re.compile(
    rf"\s*+(?:{_TURN}|#++[ \t]*+(?:response|instruction)[ \t]*+:|(?-i:model)[ \t]*\n|{_OPENCHAT}"
    rf"|[#*_>\[\(\s]*+(?:{_FOREIGN}|回答|回复|答复){_COLON})",
    re.IGNORECASE,
)
_FURTHER = re.compile(
    rf"{_TURN}|\n[ \t]*+(?:{_OPENCHAT}|[#*_>]*+[ \t]*+(?:{_FOREIGN}){_COLON})", re.IGNORECASE
)
_QUESTION = re.compile(
    r"\n[ \t]*+(?:Q|Question)[ \t]*+:[^\n]++(?:\n[^\n]*+){0,3}?\n[ \t]*+(?:A|Answer)[ \t]*+:"
)
_FIRST_QUESTION = re.compile(r"\s*+[#*_]*+(?:Q|Question)[ \t]*+\d*+[ \t]*+:")
_ASKS_FOR_QUESTIONS = re.compile(
    r"\b(?:q ?(?:&|and) ?as?|faqs?|questions|quiz|interview|dialogu?e|trivia)\b|\bQ:", re.IGNORECASE
)
"""In an instruction: of which questions and answers may be wanted."""


def begins_turn(text: str) -> bool:
    """It begins with a role's name as a header, `### Response:`, or a chat layout's token."""
    return begins_with_role(text) or _FIRST.match(text) is not None


def goes_on(text: str, instruction: str = "") -> bool:
    """It opens another turn behind its first: a role's header, a token, or a question that it asks and
    answers itself (`Q: ...`, `A: ...`), unless it begins so or is asked for such."""
    if has_extra_turns(text) or _FURTHER.search(text.lstrip()) is not None:
        return True
    return (
        _QUESTION.search(text) is not None
        and not _FIRST_QUESTION.match(text)
        and not _ASKS_FOR_QUESTIONS.search(instruction)
    )
