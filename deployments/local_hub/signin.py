"""Signing in with a browser, so that links to private repos lead somewhere: a token once, then a signed cookie.

The cookie says who is looking and when it ends; the token itself is not kept in the browser, and the cookie permits
reading alone. It ends with that token.
"""

from __future__ import annotations

from html import escape

from starlette.responses import RedirectResponse, Response

from deployments.local_hub.call import COOKIE, Call
from deployments.local_hub.errors import HubError
from deployments.local_hub.html import page

LIFETIME = 7 * 24 * 3600  # seconds


def form(call: Call) -> Response:
    """GET /login."""
    return _form(_target(call.query.get("next", "/")), "")


def sign_in(call: Call) -> Response:
    """POST /login with a token; back to where one came from."""
    token = "".join(call.body.get("token", [])).strip()
    target = _target("".join(call.body.get("next", ["/"])))
    try:
        identity = call.hub.accounts.identify(f"Bearer {token}")
    except HubError:
        return _form(target, "This token is not known here, or not any more.", 401)
    answer = RedirectResponse(target, 303)
    cookie = call.hub.signer.sign("page", LIFETIME, token=identity.token)
    answer.set_cookie(COOKIE, cookie, max_age=LIFETIME, httponly=True, samesite="lax")
    return answer


def sign_out(call: Call) -> Response:
    """GET /logout."""
    answer = RedirectResponse("/", 303)
    answer.delete_cookie(COOKIE)
    return answer


def _form(target: str, problem: str, status: int = 200) -> Response:
    return page(
        "Sign in",
        f"<h1>Sign in</h1><p>{problem}</p>"
        '<form method="post" action="/login">'
        f'<input type="hidden" name="next" value="{escape(target)}">'
        '<label>Token <input type="password" name="token" autocomplete="current-password" autofocus size="48"></label> '
        "<button>Sign in</button></form>"
        '<p class="quiet">A token comes from <code>python -m deployments.local_hub token NAME --role read</code>.</p>',
        status,
    )


def _target(path: str) -> str:
    # only a path of this Hub: never an address that someone put into a link
    return path if path.startswith("/") and not path.startswith(("//", "/\\")) else "/"
