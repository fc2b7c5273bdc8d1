"""Stands for HumanSignal's label-studio-ml 2 where it is not installed: its calls and its answers.

Written after commit d02cedf of August 2026: the same names, arguments and answers, and nothing beside.
"""
