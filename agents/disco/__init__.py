"""DiscoRL: an agent that learns by the update rule that Oh et al. (2025) discovered, read from the user's file.

``agent`` is the algorithm from playing to the gradient step, ``network`` what it learns, ``rule`` the discovered rule,
``rule_file`` its file, ``values`` action values and their targets, ``windows`` the replayed experience. A folder of its
own, because the rule is a network with a file format, beside an agent with another.
"""
