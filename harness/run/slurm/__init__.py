"""Stages as Slurm jobs, by submitit: one job a stage, that stays on no login node.

submit: plans and checks on the login node, then hands stages over, arrays where they are alike.
job: on a node, plans the row again and carries out the stage that it was submitted for.
status: what Slurm, the volume and the jobs' own notes say of each stage.
"""
