//! The page that asks for consent: one form, no script, nothing loaded from anywhere.

use std::fmt::Write as _;

use super::{CONFIRM_PATH, Offer, RedirectUrl};

/// A line above the form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Notice {
    /// No line.
    None,
    /// The password before was wrong.
    WrongPassword,
}

const STYLE: &str = "body{font:16px/1.5 system-ui,sans-serif;max-width:26rem;margin:12vh auto;\
padding:0 1rem;color:#1b1d22;background:#fff}button,select,input{font:inherit;padding:.5rem .8rem;\
margin:.4rem 0;width:100%;box-sizing:border-box}button{background:#0b5fff;color:#fff;border:0;\
border-radius:.4rem;cursor:pointer}code{word-break:break-all}.notice{color:#b00020}\
@media(prefers-color-scheme:dark){body{color:#eceef2;background:#15171c}}";

/// The page as HTML.
pub(super) fn render(
    offers: &[Offer],
    redirect_url: &RedirectUrl,
    token: &str,
    notice: Notice,
) -> String {
    let target = escape(redirect_url.target());
    let notice = match notice {
        Notice::None => "",
        Notice::WrongPassword => "<p class=\"notice\" role=\"alert\">That password is wrong.</p>",
    };
    let form = match offers {
        [] => {
            "<p>This node has no account yet. Make one with <code>messagehub user add</code>.</p>"
                .to_owned()
        }
        offers => form(offers, token),
    };
    format!(
        "<!DOCTYPE html><html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width\">\
         <title>Log in – MessageHub</title><style>{STYLE}</style></head><body><main>\
         <h1>Log in?</h1><p><strong>{target}</strong> asks to log in to your account on this node. \
         It will be able to read and write your messages. If you did not start this, \
         close this page.</p>{notice}{form}</main></body></html>"
    )
}

fn form(offers: &[Offer], token: &str) -> String {
    let mut form = format!(
        "<form method=\"post\" action=\"{CONFIRM_PATH}\">\
         <input type=\"hidden\" name=\"token\" value=\"{}\">",
        escape(token)
    );
    // Writing to a string cannot fail.
    if let [only] = offers {
        let _ = write!(
            form,
            "<p>As <strong>{}</strong><br><code>{}</code></p>\
             <input type=\"hidden\" name=\"user\" value=\"{}\">",
            escape(only.displayname.as_deref().unwrap_or_else(|| only.user_id.localpart())),
            escape(only.user_id.as_str()),
            escape(only.user_id.as_str())
        );
    } else {
        form.push_str("<label for=\"user\">As</label><select id=\"user\" name=\"user\">");
        for offer in offers {
            let name = offer.displayname.as_deref().unwrap_or_else(|| offer.user_id.localpart());
            let _ = write!(
                form,
                "<option value=\"{}\">{} ({})</option>",
                escape(offer.user_id.as_str()),
                escape(name),
                escape(offer.user_id.localpart())
            );
        }
        form.push_str("</select>");
    }
    if offers.iter().any(|offer| offer.has_password) {
        form.push_str(
            "<label for=\"password\">Password</label>\
             <input id=\"password\" name=\"password\" type=\"password\" \
             autocomplete=\"current-password\">",
        );
    }
    form.push_str("<button type=\"submit\">Continue</button></form>");
    form
}

/// Text that is only text, inside elements and inside quoted attributes.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use ruma::owned_user_id;

    use super::*;

    #[test]
    fn nothing_from_outside_becomes_markup() {
        let offers = [Offer {
            user_id: owned_user_id!("@p2p:node.example"),
            displayname: Some("<img src=x onerror=alert(1)>".to_owned()),
            has_password: false,
        }];
        let url = RedirectUrl::parse("http://a\"><script>/").unwrap();
        let html = render(&offers, &url, "t", Notice::None);
        assert!(!html.contains("<img") && !html.contains("<script"), "{html}");
        assert!(!html.contains("type=\"password\""));
    }
}
