"""One network, several tasks: the learner `multitask`, which a stage has that names none."""

from __future__ import annotations

from polyface.errors import PolyfaceError
from polyface.training.extras import EXTRAS
from polyface.training.inert import check_groups, warn, warn_of_classes
from polyface.training.learner import Learner
from polyface.training.specs import StageSpec
from polyface.training.stages import RunContext, StageResult, build_weighting, stage_pool, stage_tasks
from polyface.training.start import adapt, build_network, extended, use_cached
from polyface.training.trainer import fit, loaders_of, trainer_of
from polyface.weighting import Weighting


class Multitask:
    """Trains one network on the labels of several tasks, whose losses a weighting makes one."""

    Spec = StageSpec

    @staticmethod
    def run(stage: StageSpec, context: RunContext) -> StageResult:
        """Train the stage, from where it stands; what can be wrong with network and weighting is found before any
        picture is decoded."""
        seed, data, options, earlier = context.recipe.seed, context.data, context.options, context.earlier
        tasks = stage_tasks(stage, data, every=True)
        network = build_network(stage, tasks, seed, earlier)
        weighting = build_weighting(stage, network.shared_shape(), tasks)
        train = stage_pool(stage, "train", data, tasks, options.progress, earlier)
        if train is None:
            raise PolyfaceError(f"stage {stage.name}: no training faces (split 'train') in its tables")
        check_groups(stage, network, tasks, train)
        warn_of_classes(stage, tasks, train)
        part = stage.data.validate_on
        val = train if part == "train" else stage_pool(stage, part, data, tasks, options.progress, earlier)
        if val is None and (needs := _needs_validation(stage, weighting)):
            raise PolyfaceError(
                f"stage {stage.name}: {needs} needs validation faces, and no face has split '{part}': name some, "
                "or set data.validate_on to train"
            )
        trainer, saver = trainer_of(stage.name, stage.optimisation, options, context.folder)
        faces, validation = loaders_of(trainer, stage, seed, train, val)
        adapt(network, stage, tasks, train, seed, earlier)
        if stage.network.cached:
            network.to(trainer.strategy.root_device)
            use_cached(network, stage.data.augment, filter(None, (faces, validation)), options.progress)
        learner = Learner(stage, seed, network, tasks, weighting, faces, validation, earlier, options.progress)
        if trainer.is_global_zero:
            warn(stage, learner.period, weighting, network, learner.terms)
        fit(trainer, learner, saver, seed)
        if trainer.is_global_zero:
            final = learner.evaluated
            learner.finish()
            record = {"history": learner.history, "seconds": learner.seconds()}
            record |= {"validation_seconds": learner.validation_seconds} | learner.records()
            old = extended(stage, earlier)
            context.finish(stage, final, tasks, record, old, precision=", ".join(learner.precisions))
        trainer.strategy.barrier()
        return StageResult(context.folder / "model", learner.history, learner.seconds())


def _needs_validation(stage: StageSpec, weighting: Weighting) -> str | None:
    """What of a stage cannot do without validation faces."""
    needs = {f"weighting {stage.weighting.name}": weighting.follows_validation}
    needs |= {name: EXTRAS.get(name).needs_validation for name in stage.extras}
    needs["optimisation.schedule plateau"] = stage.optimisation.schedule == "plateau"
    needs["evaluation.select best"] = stage.evaluation.select == "best"
    return next((what for what, needed in needs.items() if needed), None)
