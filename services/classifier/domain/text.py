"""Reading a text: one folded form, tokens, sentences. Offsets are always those of the text as it was written."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

# Traditional characters of the wallet's vocabulary and their simplified forms, position by position. Only what changes
# a match is listed; a full converter would be a dependency for the sake of these.
_TRADITIONAL: Final = (
    "帳賬戶號錢銀轉實認證驗碼綁鎖凍結賊詐騙電話網絡錄陸務廣繳費額貸還欠款項餘單據買賣貨質量問題訴態報警師體發紅積優惠"
    "動參與領獎兌換幣匯率際國內陽歐韓臺灣幾過這嗎麼麽為會個們來時間後還沒無進變換機關開閃連線錯誤壞顯頁應軟載裝統設備員"
    "姓資訊聯係註冊銷戶護護產險財贖購點擊類導復覆請謝對歸屬遲遺丟盜搶傷殺該給讓將當從東誰嚴慣業標準檢測審評級別紀絕拒"
    "強須處辦理總經濟團樣寫讀聽說講談論記憶郵件寄達訂貼圖書館學校醫藥車飛鐵館飯條萬億兩雙歲歷曆夠頭臉險鐘麗唄儲蓄餘範"
    "敗稱獲擇帶週併補儘蘋傳遞確斷嘗試舉訪竊損虧暫啟閉繼續執尋憑劃撥掛隨環節興擔責權賠償農滯納徵顧閱筆衝沖倆瀏覽壽慮寬臨"
    "圍滿減壓遠離邊區園預約異現場態脫簡訊檔樓層隻張雜誌聲響熱鍵盤螢幕觸攝氣憤爛媽罵垃圾傻偽裝釣魚簡鏈圖標識別"
    "禮晝輕舊詢語贈騷擾賴遊戲曬監寶鈔滙塊圓鎊盧貳閙鬧惡龍剛纔綫闆僅擴恥黨愛樂營規組維終緩緊釋鑰錶鋪銘徹廢慘懶戀擺攔敵殘毀災煩爭牽獨瘋癡眾礙禍穩競糾純紙細織"
    "絲綠綜緣縮罰義習聖脅膽舖蓋藍虛衛術襲討託診詞誠課調諒諾謊譯豐貓貝負貧販貪貫貴賒賭贏趕趙跡踐輸辭運違選鄰鉤長門隊階難靈靜頂順頓頻顏願風養駕驚髒鬥鮮麥黃齊齡"
)
_SIMPLIFIED: Final = (
    "账账户号钱银转实认证验码绑锁冻结贼诈骗电话网络录陆务广缴费额贷还欠款项余单据买卖货质量问题诉态报警师体发红积优惠"
    "动参与领奖兑换币汇率际国内阳欧韩台湾几过这吗么么为会个们来时间后还没无进变换机关开闪连线错误坏显页应软载装统设备员"
    "姓资讯联系注册销户护护产险财赎购点击类导复覆请谢对归属迟遗丢盗抢伤杀该给让将当从东谁严惯业标准检测审评级别纪绝拒"
    "强须处办理总经济团样写读听说讲谈论记忆邮件寄达订贴图书馆学校医药车飞铁馆饭条万亿两双岁历历够头脸险钟丽呗储蓄余范"
    "败称获择带周并补尽苹传递确断尝试举访窃损亏暂启闭继续执寻凭划拨挂随环节兴担责权赔偿农滞纳征顾阅笔冲冲俩浏览寿虑宽临"
    "围满减压远离边区园预约异现场态脱简讯档楼层只张杂志声响热键盘荧幕触摄气愤烂妈骂垃圾傻伪装钓鱼简链图标识别"
    "礼昼轻旧询语赠骚扰赖游戏晒监宝钞汇块圆镑卢贰闹闹恶龙刚才线板仅扩耻党爱乐营规组维终缓紧释钥表铺铭彻废惨懒恋摆拦敌残毁灾烦争牵独疯痴众碍祸稳竞纠纯纸细织"
    "丝绿综缘缩罚义习圣胁胆铺盖蓝虚卫术袭讨托诊词诚课调谅诺谎译丰猫贝负贫贩贪贯贵赊赌赢赶赵迹践输辞运违选邻钩长门队阶难灵静顶顺顿频颜愿风养驾惊脏斗鲜麦黄齐龄"
)
# 帐 is the commonest misspelling of 账, in every word of this domain.
_VARIANTS: Final = {
    "帐": "账",
    "佘": "余",
    "妳": "你",
    "沒": "没",
    "甚": "什",
    "啓": "启",
    "裡": "里",
    "裏": "里",
    "咁": "这",
}
_FULL_WIDTH: Final = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)}
_QUOTES: Final = {
    ord("’"): "'",
    ord("‘"): "'",
    ord("＇"): "'",
    ord("　"): " ",
    ord("\xa0"): " ",
    ord("￥"): "¥",
    ord("－"): "-",
}
_FOLD: Final[dict[int, int | str]] = {
    **_FULL_WIDTH,
    **{code: code + 0x20 for code in range(ord("A"), ord("Z") + 1)},
    **{0xFF21 + step: ord("a") + step for step in range(26)},
    **dict(zip(map(ord, _TRADITIONAL), _SIMPLIFIED, strict=True)),
    **{ord(variant): usual for variant, usual in _VARIANTS.items()},
    **_QUOTES,
}
# What redaction left in the place of a secret says nothing about the matter ("[card]" is no card question).
_CUT: Final = re.compile(r"\[(?:card|cvv|password|pin|code|identity|passport|account)\]")
_TOKEN: Final = re.compile(r"[a-z]+(?:'[a-z]+)*|\d+(?:[.,]\d+)*|[㐀-䶿一-鿿豈-﫿]|[。！？!?;\n]+|[$£€¥]")
_SENTENCE_END: Final = frozenset("。！？!?;\n")

Token = str


@dataclass(frozen=True, slots=True)
class Reading:
    """A text made ready for matching.

    `folded` is character for character as long as `text`: simplified, half-width, small letters. `tokens[i]` stands at
    `starts[i]` to `ends[i]`: one Chinese character, the stem of one Latin word, one number, or the end of a sentence.
    """

    text: str
    folded: str
    tokens: tuple[Token, ...]
    starts: tuple[int, ...]
    ends: tuple[int, ...]


def fold(text: str) -> str:
    folded = text.lower() if text.isascii() else text.translate(_FOLD)
    return _CUT.sub(lambda cut: " " * len(cut[0]), folded) if "[" in folded else folded


def read(text: str) -> Reading:
    folded = fold(text)
    tokens: list[Token] = []
    starts: list[int] = []
    ends: list[int] = []
    for match in _TOKEN.finditer(folded):
        word = match[0]
        tokens.append(_token(word))
        starts.append(match.start())
        ends.append(match.end())
    return Reading(text, folded, tuple(tokens), tuple(starts), tuple(ends))


def _token(word: str) -> Token:
    if "a" <= word[0] <= "z":
        return stem(word)
    if word[0] not in _SENTENCE_END:
        return word
    return "!!" if word.count("!") > 1 else "?" if "?" in word else word[0]


def tokens_of(term: str) -> list[Token]:
    """The tokens of a term of the rules, made in the way texts are read."""
    return list(read(term).tokens)


def ends_sentence(token: Token) -> bool:
    return token[0] in _SENTENCE_END


_SHORT_WORD: Final = 3


@lru_cache(maxsize=20_000)
def stem(word: str) -> str:
    """A light stem: inflections of a word fall together, unrelated words rarely. Texts and rules pass through it alike,
    so the stem itself need not be a word.
    """
    word = word.removesuffix("'s").replace("'", "")
    if len(word) <= _SHORT_WORD:
        return word
    for suffix in ("ing", "ed", "es", "s"):
        if word.endswith(suffix) and len(word) - len(suffix) >= _SHORT_WORD and not word.endswith("ss"):
            word = word[: -len(suffix)]
            break
    if len(word) > _SHORT_WORD and word[-1] == word[-2] and word[-1] not in "aeiouls":
        word = word[:-1]
    return word[:-1] if len(word) > _SHORT_WORD and word[-1] == "e" else word
