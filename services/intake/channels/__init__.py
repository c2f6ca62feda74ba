"""What each provider sends and takes: one file per provider, behind the interface of `base`.

Adapters are pure towards the service: they neither listen nor store. `services.intake.gateway` (HTTP),
`services.intake.smtp`, `services.intake.imap` and `services.intake.chat` bring them what came in;
`python -m services.intake parse` shows what they make of it.
"""
