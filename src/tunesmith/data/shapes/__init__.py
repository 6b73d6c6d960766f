"""What a record means. In: its fields, and the shape of its file. Out: messages, an answer, and what goes with them.

    messages           {"messages": [{"role", "content"}, ...], "tools"?}   OpenAI chat; the last turn is the answer
    preference         {"input": {"messages", "tools"?}, "preferred_output", "non_preferred_output"}   OpenAI
    sharegpt           {"conversations": [{"from", "value"}, ...], "system"?, "tools"?}
    instruction        {"instruction", "input"?, "output"}                  Alpaca; also "system"
    flan               {"inputs", "targets", "task"?, "template_type"?}
    prompt_completion  {"prompt", "completion"}
    chosen_rejected    {"prompt"?, "chosen", "rejected"}                    TRL; texts, or lists of turns
    traces             {"messages", "answer", "bundle", ...}                what our own server kept
    text_label         {"text", "label"}, or the columns that task.text and task.label name
    text               {"text"}, for domain

A shape is found from the first rows, explained in check.json and written into the project file as `data.shape`;
from then on it is stated, not found. A later row of another shape is a bad row, and so is one that fits two: which
was meant is unknown. Read known.py first.
"""
