"""``mlbits doctor``: what is here, whether it works, and what is slow and why.

``examine`` puts the parts together; each part is a file that returns findings.
"""
