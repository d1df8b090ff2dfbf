"""Off-policy evaluation: what a policy is worth, from episodes that other policies played.

``estimators`` holds the estimators (importance weighting, and doubly robust with a model), ``model`` fits the model
(fitted Q evaluation), ``policies`` says what the evaluated policy would have done, ``behaviour`` estimates the policy
that made the data, and ``evaluation`` puts them together for an agent and a dataset. docs/off_policy.md explains them.
"""
