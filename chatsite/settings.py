"""The site's settings: every value comes from the environment, and every one has a default that works.

The types and defaults of `LLM_*` live in `llm.conf`, those of `CHAT_*` in `chat.conf`; here they are passed on as the
environment has them, and the system checks say what is wrong with them.
"""

import os
from pathlib import Path

from environs import Env

from chat.conf import FIELDS as CHAT_FIELDS
from chat.conf import from_mapping as chat_settings
from chatsite import backends
from chatsite.logfilters import refusals_in_a_line
from chatsite.secret import secret_key
from llm.conf import FIELDS as LLM_FIELDS

env = Env()

BASE_DIR = Path(__file__).resolve().parent.parent
vars().update({name: os.environ[name] for name in (*LLM_FIELDS, *CHAT_FIELDS) if name in os.environ})

CHATSTREAM_VAR = env.path("CHATSTREAM_VAR", default=BASE_DIR / "var").absolute()
CHATSTREAM_VAR.mkdir(parents=True, exist_ok=True)

DEBUG = env.bool("DEBUG", default=False)
SECRET_KEY = env.str("SECRET_KEY", default="") or secret_key(CHATSTREAM_VAR / "secret_key")
ALLOWED_HOSTS = env.list("ALLOWED_HOSTS", default=["localhost", "127.0.0.1", "[::1]"])
BEHIND_PROXY = env.bool("BEHIND_PROXY", default=False)

INSTALLED_APPS = [
    "daphne",  # before staticfiles: it brings the runserver that speaks WebSocket
    "chatsite",
    "chat",
    "llm",
    "servestatic",
    "csp",
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "chatsite.apps.StaticFiles",
]

MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "csp.middleware.CSPMiddleware",
    "servestatic.middleware.ServeStaticMiddleware",
    "chat.middleware.sessions",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.locale.LocaleMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]

# Bytes of a request's body. The largest that a page of the site sends are settings with a system prompt of 8,000
# characters and the admin's forms, which have at most DATA_UPLOAD_MAX_NUMBER_FIELDS (1,000) fields of some 60 bytes.
DATA_UPLOAD_MAX_MEMORY_SIZE = 256 * 1024

ROOT_URLCONF = "chatsite.urls"
CSRF_FAILURE_VIEW = "chat.failures.csrf"
ASGI_APPLICATION = "chatsite.asgi.application"

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]

DATABASES = {"default": backends.database(env.str("DATABASE_URL", default=""), CHATSTREAM_VAR)}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

AUTH_PASSWORD_VALIDATORS = [
    {"NAME": f"django.contrib.auth.password_validation.{name}"}
    for name in (
        "UserAttributeSimilarityValidator",
        "MinimumLengthValidator",
        "CommonPasswordValidator",
        "NumericPasswordValidator",
    )
]

LOGIN_URL = "sign-in"
LOGIN_REDIRECT_URL = LOGOUT_REDIRECT_URL = "chat"

LANGUAGE_CODE = "en"
LANGUAGES = [("en", "English"), ("ja", "日本語")]
LANGUAGE_COOKIE_AGE = 365 * 24 * 60 * 60
LANGUAGE_COOKIE_SAMESITE = "Lax"
TIME_ZONE = "UTC"
USE_TZ = True

# Static files. `collectstatic` gives them hashed names, compressed and cached for ever; without it they are served
# from where they lie, under their own names (chatsite.storage).
STATIC_URL = "/static/"
STATIC_ROOT = CHATSTREAM_VAR / "static"
STATIC_ROOT.mkdir(exist_ok=True)
NODE_MODULES = BASE_DIR / "chat" / "node_modules"
_VENDOR = {"markdown-it": "markdown-it/dist/browser", "highlight": "@highlightjs/cdn-assets", "katex": "katex/dist"}
STATICFILES_DIRS = [
    (f"vendor/{name}", NODE_MODULES / folder) for name, folder in _VENDOR.items() if (NODE_MODULES / folder).is_dir()
]
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {"BACKEND": "chatsite.storage.HashedStaticFiles"},
}
SERVESTATIC_USE_FINDERS = DEBUG or not (STATIC_ROOT / "staticfiles.json").exists()
SERVESTATIC_ALLOW_ALL_ORIGINS = False

REDIS_URL = env.str("REDIS_URL", default="")
SESSION_ENGINE = "django.contrib.sessions.backends.db"
vars().update(backends.redis(REDIS_URL))  # another engine, caches, a channel layer
SEVERAL_PROCESSES = bool(REDIS_URL) and DATABASES["default"]["ENGINE"].endswith("postgresql")
_chat = chat_settings(vars(), strict=False)
SESSION_COOKIE_AGE = _chat.session_days * 24 * 60 * 60
SESSION_COOKIE_SAMESITE = "Lax"

# A proxy that strips the port makes the site's own pages foreign to it: what may open a socket may send a form too.
CSRF_TRUSTED_ORIGINS = list(_chat.origins)
SECURE_CONTENT_TYPE_NOSNIFF = True
SECURE_REFERRER_POLICY = "same-origin"
SECURE_CROSS_ORIGIN_OPENER_POLICY = "same-origin"
X_FRAME_OPTIONS = "DENY"
if BEHIND_PROXY:
    SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
    SESSION_COOKIE_SECURE = True
    CSRF_COOKIE_SECURE = True
    LANGUAGE_COOKIE_SECURE = True
    SECURE_HSTS_SECONDS = 365 * 24 * 60 * 60

_OWN = ["'self'"]
_NONE = ["'none'"]
CONTENT_SECURITY_POLICY = {
    "DIRECTIVES": {
        "default-src": _NONE,
        "base-uri": _NONE,
        "object-src": _NONE,
        "frame-ancestors": _NONE,
        "script-src": _OWN,
        "style-src": _OWN,
        "img-src": _OWN,
        "font-src": _OWN,
        "connect-src": _OWN,
        "form-action": _OWN,
        "manifest-src": _OWN,
    }
}

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "filters": {
        # A 503 is an answer (the model is loading), and the one who asks repeats it every second.
        "not_503": {
            "()": "django.utils.log.CallbackFilter",
            "callback": lambda record: getattr(record, "status_code", None) != 503,
        },
        "refusals_in_a_line": {
            "()": "django.utils.log.CallbackFilter",
            "callback": refusals_in_a_line,
        },
    },
    "formatters": {"line": {"format": "{asctime} {levelname:<7} {name}: {message}", "style": "{"}},
    "handlers": {
        "console": {
            "class": "logging.StreamHandler",
            "formatter": "line",
            "filters": ["not_503", "refusals_in_a_line"],
        }
    },
    "root": {"handlers": ["console"], "level": "WARNING"},
    "loggers": {
        name: {"level": "INFO", "handlers": ["console"], "propagate": False}
        for name in ("django", "chatsite", "chat", "llm")
    },
}
