"""The stages: each a plain function of typed options and an output folder.

A stage module holds ``class Options(config.Model)`` and ``run(options, out) -> dict``. The command line and
the workflow engine call the same function. Modules are named here and imported only when used.
"""

STAGES: dict[str, str] = {
    "convert": "lamkit.stages.convert",
    "split": "lamkit.stages.split",
    "pretrain": "lamkit.stages.pretrain",
    "finetune": "lamkit.stages.finetune",
    "rebias": "lamkit.stages.rebias",
    "rank-heads": "lamkit.stages.rank_heads",
    "import": "lamkit.stages.import_",
    "export": "lamkit.stages.export",
    "generate": "lamkit.stages.generate",
    "explore": "lamkit.stages.explore",
    "select": "lamkit.stages.select",
    "label": "lamkit.stages.label",
    "distill": "lamkit.stages.distill",
    "evaluate": "lamkit.stages.evaluate",
    "md": "lamkit.stages.md",
    "relax": "lamkit.stages.relax",
    "report": "lamkit.stages.report",
}
