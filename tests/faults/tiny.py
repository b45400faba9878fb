"""A recipe that trains in seconds, as a file's text."""

TINY = """
name: tiny
stages:
  - name: tiny
    data:
      tables: [{{name: synthetic, options: {{n: 260, size: 40}}}}]
      boxes: {{source: table}}
      crop: {{size: 40, channels: 1, scale: 1.2}}
      batch: 16
    network: {{trunk: {{name: tcdcn, plan: tcdcn, filters: shared, activation: abs_tanh}}}}
    tasks: {{landmarks: {{kind: landmarks, points: 5, loss: l1}}}}
    optimisation: {{epochs: {epochs}}}
variants:
  one: {{stages: [tiny], seeds: {seeds}}}
"""
