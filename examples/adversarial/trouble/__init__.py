"""What goes wrong between two players, shown and counted; each is a command of its own:

python -m examples.adversarial.trouble.dirac       oscillation, and what makes it converge
python -m examples.adversarial.trouble.mixtures    modes found and lost
python -m examples.adversarial.trouble.saturation  the gradient that vanishes
python -m examples.adversarial.trouble.optimum     D* = p / (p + q)
"""
