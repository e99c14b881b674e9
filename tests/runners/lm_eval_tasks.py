"""Small tasks of lm-evaluation-harness on this machine: task files and their documents."""

import json

DOCUMENTS = [
    {"question": "The capital of France is", "choices": ["Paris", "London", "Rome"], "answer": "Paris", "label": 0},
    {"question": "Two and two make", "choices": ["five", "four"], "answer": "four", "label": 1},
    {"question": "The sun rises in the", "choices": ["west", "east"], "answer": "east", "label": 1},
    {"question": "Water is oxygen and", "choices": ["hydrogen", "iron"], "answer": "oxygen", "label": 0},
]
CHOICE = 'doc_to_choice: "{{choices}}"\ndoc_to_target: label\n'
ANSWER = 'doc_to_target: " {{answer}}"\ntarget_delimiter: ""\n'
PERPLEXITY = "metric_list: [{metric: perplexity}, {metric: acc}]\n"
GREEDY = 'generation_kwargs: {until: ["\\n", "."], max_gen_toks: 6}\nmetric_list: [{metric: exact_match}]\n'
TASKS = {
    "choice": ("multiple_choice", CHOICE + "metric_list: [{metric: acc}, {metric: acc_norm}]\n"),
    "text": ("loglikelihood", ANSWER + PERPLEXITY),
    "write": ("generate_until", ANSWER + GREEDY),
    "empty": ("loglikelihood", ANSWER + PERPLEXITY),
    "zero": ("loglikelihood", ANSWER + PERPLEXITY + "num_fewshot: 0\n"),
    "unsafe": ("generate_until", ANSWER + GREEDY + "unsafe_code: true\n"),
    "rolling": ("loglikelihood_rolling", 'doc_to_target: "{{question}}"\nmetric_list: [{metric: word_perplexity}]\n'),
    "sampled": ("generate_until", ANSWER + GREEDY.replace("until:", "do_sample: true, temperature: 0.5, until:")),
    "missing": ("loglikelihood", ANSWER + PERPLEXITY),
    "hub": ("loglikelihood", ANSWER + PERPLEXITY),
}


def write_tasks(folder, documents=DOCUMENTS):
    """Write the task files local_choice, local_text, ... and their documents to a folder, and return it."""
    folder.mkdir()
    (folder / "documents.jsonl").write_text("\n".join(map(json.dumps, documents)) + "\n")
    for name, (kind, rest) in TASKS.items():
        file = "none.jsonl" if name == "missing" else "documents.jsonl"
        path = "nobody/no-such-data" if name == "hub" else "json"
        kwargs = "" if name == "hub" else f"dataset_kwargs: {{data_files: {{test: {folder / file}}}}}\n"
        question = "" if name in ("empty", "rolling") else "{{question}}"
        (folder / f"{name}.yaml").write_text(
            f"task: local_{name}\ndataset_path: {path}\n{kwargs}test_split: test\nfewshot_split: test\n"
            f'output_type: {kind}\ndoc_to_text: "{question}"\n{rest}'
        )
    (folder / "group.yaml").write_text(
        "group: local_group\ntask: [local_choice, local_text]\n"
        "aggregate_metric_list: [{metric: acc, weight_by_size: true}]\n"
    )
    return folder
