"""A judge that answers as the stored annotations say: by what it is shown, never by what it should be asked."""

import re

from tests.evaluation.judge_server import Answer

_SHOWN = re.compile(
    r'"instruction": """(?P<instruction>.*)""",\n\}\n\n## Model Outputs.*?"model_identifier": "m",\n {8}"output": """'
    r'(?P<first>.*)"""\n {4}\},\n {4}\{\n {8}"model_identifier": "M",\n {8}"output": """(?P<second>.*)"""\n {4}\}\n\}'
    r"\n\n## Task\n",
    re.DOTALL,
)


def shown(call):
    """Instruction and outputs, in the order in which a call shows them."""
    system, user = call.body["messages"]
    assert system["role"] == "system" and user["role"] == "user"
    match = _SHOWN.search(user["content"])
    assert match is not None
    return match["instruction"], match["first"], match["second"]


def replaying(rows):
    """Answers with the stored log-probabilities of the row whose outputs are shown; those are of the shown order.

    A row without stored ones is answered so that its stored preference comes out.
    """
    stored = {}
    for row in rows:
        stored[row["instruction"], frozenset((row["output_1"], row["output_2"]))] = row

    def answer(call):
        instruction, first, second = shown(call)
        row = stored[instruction, frozenset((first, second))]
        return Answer(logprobs=row["judge_top_logprobs"])

    return answer
