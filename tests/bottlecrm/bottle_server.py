"""BottleCRM for real, run in the environment that has it: `bottle_server.py migrate` and `bottle_server.py serve`.

The database and all else come by the environment, as BottleCRM's own settings read them. `serve` takes an organisation
as JSON by the first line of standard input, prints the ids of what it made, and serves on the socket that BOTTLE_FD
names until standard input ends, however that comes about: then the whole process group ends with it.
"""

import json
import os
import signal
import subprocess
import sys


def main():
    """One of the two."""
    import django

    django.setup()
    if sys.argv[1] == "migrate":
        from django.core.management import call_command

        call_command("migrate", verbosity=0)
        return
    print(json.dumps(_organisation(json.loads(sys.stdin.readline()))), flush=True)  # noqa: T201 - that is its answer
    number = int(os.environ["BOTTLE_FD"])
    command = [sys.executable, "-m", "gunicorn", "crm.wsgi", "--bind", f"fd://{number}", "--threads", "4",
               "--worker-tmp-dir", os.getcwd(), "--log-level", "warning"]  # noqa: PTH109
    with subprocess.Popen(command, pass_fds=[number], stdin=subprocess.DEVNULL, stdout=sys.stderr):
        sys.stdin.read()
        os.killpg(0, signal.SIGKILL)


def _organisation(wanted):
    """Makes users with their tokens, and accounts; everyone is an administrator, the inactive ones are inactive."""
    from accounts.models import Account
    from common.models import Org, PersonalAccessToken, Profile, User

    org, profiles = Org.objects.create(name=wanted["name"]), {}
    for email, user in wanted["users"].items():
        profiles[email] = Profile.objects.create(
            user=User.objects.create(email=email), org=org, role=user.get("role", "ADMIN"), is_active=user["active"])
        if "token" in user:
            PersonalAccessToken.objects.create(
                org=org, profile=profiles[email], name="tests", token_prefix=user["token"][:13],
                token_hash=PersonalAccessToken.hash_token(user["token"]), scopes=user.get("scopes", []))
    for code in wanted["accounts"]:
        Account.objects.create(name=f"Company {code}", org=org, custom_fields={wanted["account_field"]: code})
    return {"org": str(org.id), "profiles": {email: str(one.id) for email, one in profiles.items()}}


if __name__ == "__main__":
    main()
