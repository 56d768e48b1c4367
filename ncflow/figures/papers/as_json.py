"""Verdicts for machines: what ``verdicts.json`` holds."""

from typing import Any

from ncflow.figures.papers.verdict import Effect, Setting, Verdict


def as_json(verdict: Verdict) -> dict[str, Any]:
    """A verdict as JSON; estimates are null where there is no test, and ``against`` is empty if it is supported."""
    return {
        "maker": "ncflow",
        "id": verdict.id,
        "claim": verdict.claim,
        "answer": str(verdict.answer),
        "source": verdict.source,
        "departure": verdict.departure,
        "quantifier": str(verdict.quantifier),
        "needs": verdict.needs,
        "seeds_to_decide": verdict.seeds_to_decide,
        "settings": [_setting(setting) for setting in verdict.settings],
        "against": [
            {"setting": setting.name, "quantity": effect.quantity, "seeds": [float(seed) for seed in seeds]}
            for setting in verdict.against
            for effect, seeds in setting.against
        ],
        "left_out": verdict.left_out,
    }


def _setting(setting: Setting) -> dict[str, Any]:
    return {
        "name": setting.name,
        "answer": str(setting.answer),
        "excepted": setting.excepted,
        "runs": setting.runs,
        "note": setting.note,
        "effects": [_effect(effect) for effect in setting.effects],
    }


def _effect(effect: Effect) -> dict[str, Any]:
    return {
        "quantity": effect.quantity,
        "smallest": effect.smallest,
        "absent": effect.absent,
        "seeds": [float(seed) for seed in effect.blocks],
        "blocks": [float(value) for value in effect.blocks.values()],
        "mean": effect.estimate.mean if effect.is_testable else None,
        "interval": list(effect.estimate.interval) if effect.is_testable else None,
    }
