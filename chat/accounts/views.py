"""Serves the pages to sign up, in and out, and to change a password: Django's own forms, in the look of the page.

Which conversations an account has, `chat.visitors.identity` says: it hears of every sign-in and sign-out.
"""

from __future__ import annotations

from typing import Any

from django.contrib import messages
from django.contrib.auth import login, views
from django.contrib.auth.forms import UserCreationForm
from django.db import IntegrityError, transaction
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseBase
from django.shortcuts import redirect
from django.urls import reverse_lazy
from django.utils.decorators import method_decorator
from django.utils.translation import gettext as _
from django.views.decorators.cache import never_cache
from django.views.decorators.debug import sensitive_post_parameters
from django.views.generic import FormView
from django.views.generic.edit import FormMixin

from chat.accounts.attempts import limited
from chat.conf import get_settings


class Labelled(FormMixin):
    """Puts labels above their fields, without the colon that would follow them."""

    def get_form_kwargs(self) -> dict[str, Any]:
        return super().get_form_kwargs() | {"label_suffix": ""}


class SignIn(Labelled, views.LoginView):
    """Signs in by name and password."""

    template_name = "chat/account/sign_in.html"
    redirect_authenticated_user = True

    def get_context_data(self, **kwargs: Any) -> dict[str, Any]:
        return super().get_context_data(sign_up=get_settings().may_sign_up, **kwargs)


@method_decorator([sensitive_post_parameters(), never_cache], name="dispatch")
class SignUp(Labelled, views.RedirectURLMixin, FormView):
    """Makes a new account, whose owner is signed in at once."""

    template_name = "chat/account/sign_up.html"
    form_class = UserCreationForm
    next_page = "chat"

    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        if not get_settings().may_sign_up:
            raise Http404("Accounts are made by those who run this site.")
        if request.user.is_authenticated:
            return redirect("account")
        return super().dispatch(request, *args, **kwargs)

    def form_valid(self, form: Any) -> HttpResponse:
        try:
            with transaction.atomic():
                user = form.save()
        except IntegrityError:  # somebody took the name since it was looked for
            form.full_clean()
            return self.form_invalid(form)
        login(self.request, user)
        return super().form_valid(form)

    def get_context_data(self, **kwargs: Any) -> dict[str, Any]:
        return super().get_context_data(next=self.get_redirect_url(), **kwargs)


class Account(Labelled, views.PasswordChangeView):
    """Shows who is signed in, and changes the password, which signs all other browsers out."""

    template_name = "chat/account/account.html"
    success_url = reverse_lazy("account")

    def form_valid(self, form: Any) -> HttpResponse:
        messages.success(self.request, _("Your password was changed. Other browsers are signed out."))
        return super().form_valid(form)


sign_in = limited()(SignIn.as_view())
sign_up = limited(successes=True)(SignUp.as_view())
sign_out = views.LogoutView.as_view()
account = limited()(Account.as_view())
